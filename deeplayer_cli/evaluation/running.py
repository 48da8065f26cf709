"""Running the lines of a comparison: one loaded model, the same rows under several settings."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING

from deeplayer_cli import pruning
from deeplayer_cli.evaluation.compare import gather
from deeplayer_cli.evaluation.cost import CostModel
from deeplayer_cli.evaluation.matching import label_of
from deeplayer_cli.evaluation.reading import read_predictions
from deeplayer_cli.evaluation.results import result_path, with_outcome
from deeplayer_cli.grounder import Grounder
from deeplayer_cli.prefixes import Prefixes
from deeplayer_cli.sinks import PredictionFile, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.evaluation.compare import Cost, Run
    from deeplayer_cli.evaluation.cost import Workload
    from deeplayer_cli.grounder import Settings
    from deeplayer_cli.imaging import Tiling
    from deeplayer_cli.pipeline import Job
    from deeplayer_cli.pruning import Method
    from deeplayer_cli.schema import Id, Prediction
    from deeplayer_cli.sinks import RunRecord
    from deeplayer_cli.sources import Requests


class Stopped(Exception):  # noqa: N818 - not an error
    """A comparison ended early because it was asked to."""


@dataclass
class Line:
    """One of the settings that rows are asked under.

    Attributes:
        settings: what to ask.
        sink: where the answers go.
        grounder: who asks.
        rows: how many have been asked.
        seconds: what that would have taken without the others.
    """

    settings: Settings
    sink: PredictionFile
    grounder: Grounder
    rows: int = 0
    seconds: float = 0.0

    def turns(self, jobs: Sequence[Job], stopped: Callable[[], bool]) -> Iterator[list[Prediction]]:
        """Answer what has no answer among some rows, a batch at a time; what is yielded has been written."""
        mine = [job for job in jobs if self.sink.unanswered(job.request)]
        batches = self.grounder.answer_window(mine, stopped)
        while True:
            begun, spared = time.perf_counter(), self.grounder.spared
            batch = next(batches, None)
            if batch is None:
                return
            self.grounder.release()  # the next line needs the room
            for prediction in batch:
                self.sink.write(prediction)
            self.rows += len(batch)
            self.seconds += time.perf_counter() - begun + self.grounder.spared - spared
            yield batch


@dataclass(frozen=True)
class Runner:
    """Asks rows under any settings, each into a prediction file of its own.

    Attributes:
        checkpoint: the model.
        requests: rows that can be read again.
        folder: of the prediction files; what they hold already is not asked again.
        record: of a run with some settings.
        stopped: asked after every batch whether to end.
    """

    checkpoint: Checkpoint
    requests: Requests
    folder: Path
    record: Callable[[Settings], RunRecord]
    stopped: Callable[[], bool]

    def method(self, settings: Settings) -> Method:
        """The method that settings name.

        Raises:
            DeeplayerError: the model cannot run it.
        """
        n_layers: int = self.checkpoint.model.config.text_config.num_hidden_layers
        return pruning.build(settings.method, settings.pruning_options(self.checkpoint), n_layers)

    def tiling(self, settings: Settings) -> Tiling:
        """How settings have images cut."""
        tiling = self.checkpoint.tiling
        return replace(tiling, max_tiles=settings.max_tiles or tiling.max_tiles)

    def answer(self, wanted: Sequence[Settings]) -> Iterator[tuple[Line, Prediction]]:
        """Ask the rows that have no answer yet, under all settings in turn, yielding each answer once it is written.

        What the methods have in common is computed once for each batch: the vision tower, and the layers before the
        drop where it is the same for neighbours in the order of their layers.

        Args:
            wanted: settings that differ in their method alone.

        Raises:
            DeeplayerError: the file holds an answer to another question under some id, or cannot be written.
            Stopped: it was asked to end; what was yielded is in the file.
        """
        prefixes = Prefixes()
        with ExitStack() as files:
            lines = [self._line(settings, prefixes, files) for settings in wanted]
            lines.sort(key=lambda line: line.grounder.method.layer or 0)
            unanswered = (row for row in self.requests if any([line.sink.unanswered(row) for line in lines]))  # noqa: C419
            for jobs in lines[0].grounder.windows(unanswered, stopped=self.stopped):
                turns = [line.turns(jobs, self.stopped) for line in lines]
                for turn in zip_longest(*turns, fillvalue=()):
                    yield from (
                        (line, prediction) for line, part in zip(lines, turn, strict=True) for prediction in part
                    )
        if self.stopped():
            raise Stopped

    def _line(self, settings: Settings, prefixes: Prefixes, files: ExitStack) -> Line:
        record = self.record(settings)
        sink = files.enter_context(PredictionFile(result_path(self.folder, record), record, Start.RESUME))
        return Line(settings, sink, Grounder(self.checkpoint, settings, prefixes=prefixes))

    def finish(self, settings: Settings) -> Run:
        """What the answers to the rows come to; notes in the file's record that it is whole."""
        record = self.record(settings)
        path = result_path(self.folder, record)
        statuses = Counter(row.status for row in read_predictions(path))
        whole = CostModel(self.checkpoint).workload(read_predictions(path))
        with_outcome(record, statuses, self.cost(settings, whole) if whole else None).save(path)
        run = gather(self._rows(settings), label=label_of(settings), keep=settings.keep)
        workload = self.workload(settings)
        return replace(run, cost=self.cost(settings, workload) if workload else None)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self._ids)

    def workload(self, settings: Settings) -> Workload:
        """What the rows asked, once they are answered under settings."""
        return CostModel(self.checkpoint).workload(self._rows(settings))

    def cost(self, settings: Settings, workload: Workload) -> Cost:
        """What a workload of at least one row costs under settings."""
        return CostModel(self.checkpoint).cost(self.method(settings), workload, self.tiling(settings))

    def largest(self, settings: Settings, workload: Workload) -> int:
        """Visual tokens of the largest image of a workload."""
        return CostModel(self.checkpoint).largest(workload, self.tiling(settings))

    def _rows(self, settings: Settings) -> Iterator[Prediction]:
        """The answers to the rows: the file may hold more."""
        path = result_path(self.folder, self.record(settings))
        return (row for row in read_predictions(path) if row.id in self._ids)

    @cached_property
    def _ids(self) -> frozenset[Id]:
        return frozenset(row.id for row in self.requests)
