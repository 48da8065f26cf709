"""Runs the lines of a comparison: one model answers the same rows under several settings."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deeplayer_cli import pruning
from deeplayer_cli.cost.model import CostModel
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.evaluation.compare import gather, line_called
from deeplayer_cli.evaluation.matching import (
    Unreachable,
    at_equal_cost,
    at_equal_keep,
    label_of,
    require_measure,
    warn_of_scouts,
)
from deeplayer_cli.evaluation.results import result_path, with_outcome
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.runtime.identity import deciding
from deeplayer_cli.runtime.run import RunProgress
from deeplayer_cli.runtime.totals import Totals
from deeplayer_cli.schema import Request, check_gold, check_resolution
from deeplayer_cli.sinks import PredictionFile, ResumeMode, RunRecord, read_predictions
from deeplayer_cli.sources import count_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.cost.model import Cost, Workload
    from deeplayer_cli.evaluation.compare import MethodRun
    from deeplayer_cli.evaluation.matching import Match
    from deeplayer_cli.models.internvl.tiling import Tiling
    from deeplayer_cli.pruning import Method
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.runtime.turns import ComparedModel, IsUnanswered
    from deeplayer_cli.schema import BadRequest, Id, Prediction, Status
    from deeplayer_cli.sources import Requests


class Stopped(Exception):  # noqa: N818 - not an error
    """The user stopped the comparison before its end."""


@dataclass(frozen=True)
class ComparisonPlan:
    """The settings of a comparison.

    Attributes:
        base: the settings that prune nothing; they always run.
        wanted: the other settings, without ``keep``.
        shares: the keeps.
        adaptive: fields of the settings for each budget that is a share of the attention. Without ``shares`` and these,
            every method has its own keep.
        match: what is equal for all methods: keep, mean keep or FLOPs.
        reference: name of the line that the others are compared with.
    """

    base: Settings
    wanted: Sequence[Settings]
    shares: Sequence[float]
    match: Match
    reference: str
    adaptive: Sequence[Mapping[str, Any]] = ()

    def refuse_impossible(self) -> None:
        """Refuse an impossible comparison before a model is loaded.

        Raises:
            DeeplayerError: the reference is not one of the lines, the first method cannot set the cost, or the cost of
                a method is not known before its answers.
        """
        self._require_reference(at_equal_keep(self.wanted, self.shares, self.adaptive))
        if self.adaptive:
            self._refuse_match("--keep auto:P")
        for one in self.wanted:
            if one.fallback is not None:
                self._refuse_match(label_of(one))
        require_measure(self.wanted, self.match)

    def run(
        self, runner: ComparisonRunner, progress: Callable[[RunProgress], None]
    ) -> tuple[list[MethodRun], list[Unreachable]]:
        """Run all lines.

        Args:
            runner: answers the rows.
            progress: called at the start and after every row.

        Returns:
            The runs, and the methods that cannot reach the cost of the first method.

        Raises:
            DeeplayerError: the model cannot run a method, or the rows cannot be compared.
            Stopped: the user stopped the comparison; answers so far are in the files.
        """
        for one in at_equal_keep(self.wanted, self.shares, self.adaptive):
            if runner.method(one).is_adaptive:  # refuse what this model cannot run before hours of work
                self._refuse_match(label_of(one))
        lines = self._lines(runner)
        reachable = [one for one in lines if not isinstance(one, Unreachable)]
        self._require_reference(reachable)
        return runner.run([self.base, *reachable], progress), [one for one in lines if isinstance(one, Unreachable)]

    def _lines(self, runner: ComparisonRunner) -> Sequence[Settings | Unreachable]:
        if self.match == "keep":
            return at_equal_keep(self.wanted, self.shares, self.adaptive)
        warn_of_scouts(self.wanted, self.match)
        workload = runner.workload()
        return at_equal_cost(
            self.wanted,
            self.shares or [self.wanted[0].keep],
            self.match,
            cost=lambda settings: runner.cost(settings, workload),
            largest=lambda settings: runner.largest(settings, workload),
        )

    def _refuse_match(self, adapts: str) -> None:
        """Refuse to match a cost that the content of each row decides: nobody knows it before the answers."""
        if self.match != "keep":
            raise DeeplayerError(
                f"--match {self.match} needs a cost that is known before the answers, and that of {adapts} depends on "
                "each row: leave out --match, and compare the GFLOPs of the table, which count what was really kept"
            )

    def _require_reference(self, wanted: Sequence[Settings]) -> None:
        line_called(self.reference, [label_of(one) for one in (self.base, *wanted)])


class ComparisonRunner:
    """Answers the rows under several settings; each settings have their own prediction file.

    Args:
        model: gives the answers.
        requests: the rows; they are read several times.
        folder: folder of the prediction files. Rows that a file holds already are not answered again.
        circumstances: further entries of the records.
        stopped: called after every batch; True stops the comparison.
        split_of: names the split of a row.

    Raises:
        DeeplayerError: two rows have the same id.
    """

    def __init__(
        self,
        model: ComparedModel,
        requests: Requests,
        folder: Path,
        circumstances: Mapping[str, object],
        stopped: Callable[[], bool],
        split_of: Callable[[Prediction], str] | None = None,
    ) -> None:
        self._model, self._requests, self._folder = model, requests, folder
        self._circumstances, self._stopped, self._split_of = circumstances, stopped, split_of
        self._costs = CostModel(model.checkpoint, model.identity.itemsize)
        ids: set[Id] = set()

        def note(row: Request | BadRequest) -> bool:
            ids.add(row.id)
            return True

        count_rows(requests, note)  # this pass also refuses duplicate ids
        self._ids = frozenset(ids)

    @property
    def n_layers(self) -> int:
        """Number of decoder layers of the model."""
        return int(self._model.checkpoint.config.text_config.num_hidden_layers)

    def method(self, settings: Settings) -> Method:
        """Build the method of the settings.

        Raises:
            DeeplayerError: the model cannot run the method.
        """
        prior = self._model.prior if settings.prior else None
        options = settings.pruning_options(self._model.checkpoint.grounding_layer, prior)
        return pruning.build(settings.method, options, self.n_layers)

    def run(self, wanted: Sequence[Settings], progress: Callable[[RunProgress], None]) -> list[MethodRun]:
        """Answer the rows under all ``wanted`` settings.

        A run has ``seconds`` only if this call answered all of its rows, and the model measures them.

        Raises:
            DeeplayerError: a file holds an id with another image or expression, or cannot be written.
            Stopped: the user stopped the comparison; answers so far are in the files.
        """
        totals, n_left = Totals(lambda *_: 1.0), len(wanted) * len(self._ids)
        answered: Counter[Settings] = Counter()
        progress(RunProgress(totals, n_left, None))
        for tiles in dict.fromkeys(one.max_tiles for one in wanted):
            lines = [one for one in wanted if one.max_tiles == tiles]
            for settings, prediction in self._answer(lines):
                totals.add(prediction)
                progress(RunProgress(totals, n_left, prediction))
                answered[settings] += 1
        whole = [one for one in wanted if answered[one] == len(self._ids)]
        seconds = {one: self._model.seconds.get(one) for one in whole}
        return [replace(self._finish(one), seconds=seconds.get(one)) for one in wanted]

    def workload(self) -> Workload:
        """The workload of all rows that can be answered, from the sizes of their images.

        Raises:
            DeeplayerError: no row can be answered.
        """
        sizes: dict[Path, Resolution | None] = {}
        found: Workload = Counter(
            self._costs.prompt(size, row.expression)
            for row in self._requests
            if isinstance(row, Request) and (size := _usable_size(row, sizes)) is not None
        )
        if not found:
            raise DeeplayerError("--match needs the cost of the rows, but no row can be answered")
        return found

    def cost(self, settings: Settings, workload: Workload) -> Cost:
        """The cost of a workload of at least one row under settings."""
        return self._costs.cost(self.method(settings), workload, self._tiling(settings))

    def largest(self, settings: Settings, workload: Workload) -> int:
        """The number of visual tokens of the largest image of a workload."""
        return self._costs.largest(workload, self._tiling(settings))

    def _tiling(self, settings: Settings) -> Tiling:
        return settings.tiling(self._model.checkpoint.tiling)

    def _answer(self, wanted: Sequence[Settings]) -> Iterator[tuple[Settings, Prediction]]:
        """Answer the rows that lack an answer, under settings that differ only in their method; write the answers."""
        with ExitStack() as opened:
            files = {one: opened.enter_context(self._file(one)) for one in wanted}
            self._refuse_changed([file for file in files.values() if len(file.answered)])
            unanswered = {one: file.unanswered for one, file in files.items()}
            rows = (row for row in self._requests if _any_unanswered(unanswered.values(), row))
            for settings, prediction in self._model.answer(rows, unanswered, self._stopped):
                files[settings].write(prediction)
                yield settings, prediction
        if self._stopped():
            raise Stopped

    def _refuse_changed(self, files: Sequence[PredictionFile]) -> None:
        """Refuse rows that changed since a file answered them: methods would be scored by different gold boxes.

        Raises:
            DeeplayerError: a row has another gold box or other fields than in a file.
        """
        for row in self._requests if files else ():
            for file in files:
                if file.outdated(row):
                    raise DeeplayerError(
                        f"{row.where}: id {row.id!r} has another gold box or other fields than in {file.path}: the "
                        "input has changed, and all methods need the same; give --results another folder"
                    )

    def _file(self, settings: Settings) -> PredictionFile:
        record = self._record(settings)
        return PredictionFile(result_path(self._folder, record), record, ResumeMode.RESUME)

    def _record(self, settings: Settings) -> RunRecord:
        return RunRecord(deciding(self._model.identity, settings), self._circumstances)

    def _finish(self, settings: Settings) -> MethodRun:
        """Read the results of the rows from the file, and mark the file as finished in its record."""
        record, method = self._record(settings), self.method(settings)
        path = result_path(self._folder, record)
        statuses: Counter[Status] = Counter()
        whole: Workload = Counter()
        own: Workload = Counter()  # the file may hold more rows than the requests of this run

        def own_rows() -> Iterator[Prediction]:
            for row in read_predictions(path):
                statuses[row.status] += 1
                prompt = self._costs.answered(row, method)
                whole.update([prompt] if prompt else [])
                if row.id in self._ids:
                    own.update([prompt] if prompt else [])
                    yield row

        run = gather(
            own_rows(),
            label=label_of(settings),
            keep=settings.keep if settings.keep_mass is None else None,
            split_of=self._split_of,
        )
        with_outcome(record, statuses, self.cost(settings, whole) if whole else None).save(path)
        return replace(run, cost=self.cost(settings, own) if own else None)


def _any_unanswered(checks: Iterable[IsUnanswered], row: Request | BadRequest) -> bool:
    """Whether at least one file has no answer to a row."""
    # A list, not a generator: each check also compares the row with the one in its file.
    return any([is_unanswered(row) for is_unanswered in checks])  # noqa: C419


def _usable_size(row: Request, sizes: dict[Path, Resolution | None]) -> Resolution | None:
    """Width and height of a row's image, from the header of the file; None if the row cannot be answered."""
    try:
        if row.path not in sizes:
            sizes[row.path] = None
            sizes[row.path] = read_size(row.path)
        size = sizes[row.path]
        if size is not None:
            check_resolution(row.resolution_wh, size)
            if row.gold is not None:
                check_gold(row.gold, size)
    except RowError:
        return None
    return size
