"""The run loop: rows from a source, through a grounder, into a sink, until all are answered or the run must end.

The command, Python and every worker run this loop. It needs no torch: what answers is an `Answerer`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.failure_limit import FailureLimit
from deeplayer_cli.runtime.totals import Totals
from deeplayer_cli.schema import in_text
from deeplayer_cli.sinks import ResumeMode, RunRecord, open_sink, refuse_same_file
from deeplayer_cli.sources import ArrivingRows, Requests, by_image, count_rows, fail_repeated, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from deeplayer_cli.images.loader import LoadedRequest
    from deeplayer_cli.runtime.profile import Profile
    from deeplayer_cli.schema import BadRequest, Prediction, Request
    from deeplayer_cli.sinks import Sink

    Rows = Iterable[Request | BadRequest]


class Answerer(Protocol):
    """What a run needs of whoever answers; a `Grounder` is one."""

    @property
    def answers_whole_images(self) -> bool:
        """Whether all rows of an image must be answered together."""

    @property
    def seconds_saved(self) -> float:
        """Seconds that others have spent for it, so far."""

    def windows(self, rows: Rows, *, stopped: Callable[[], bool]) -> Iterator[Sequence[LoadedRequest]]:
        """Rows with their images, as many at a time as are worth looking at together."""

    def answer_window(
        self, window: Sequence[LoadedRequest], stopped: Callable[[], bool]
    ) -> Iterator[Sequence[Prediction]]:
        """Answer rows with their images, a batch at a time, in order."""

    def mean_keep(self, n_visual: int, n_kept: int) -> float:
        """Share of an image's visual tokens that is seen, averaged over layers."""

    def advice(self) -> str | None:
        """A sentence about what would have been better for these rows."""

    def profile(self, rows: int, seconds: float) -> Profile:
        """Where the time of a run went."""


class RecordedAnswerer(Answerer, Protocol):
    """An answerer that knows what its answers depend on."""

    def deciding(self) -> Mapping[str, object]:
        """What an answer depends on besides its row and image."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        totals: of this run, so far.
        n_left: rows that were to be answered when the run began; None if that is not known.
        prediction: the newest; None at the start.
    """

    totals: Totals
    n_left: int | None
    prediction: Prediction | None


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        totals: over all rows of the sink, those of earlier runs included, where it can be read again.
        n_rows: rows of the source; None if it can be read only once.
        n_answered: rows that this run answered.
        seconds: that this run took, without loading the model.
        stopped: it was asked to end before the last row.
        advice: see `Answerer.advice`.
        profile: where the time went, if that was asked for.
    """

    totals: Totals
    n_rows: int | None
    n_answered: int
    seconds: float
    stopped: bool = False
    advice: str | None = None
    profile: Profile | None = None

    @property
    def counts(self) -> dict[str, int]:
        """All rows by status; their sum is ``rows``."""
        return self.totals.counts


@dataclass
class RunLine:
    """One answerer with its sink; several of them take turns at the same rows.

    Attributes:
        answerer: answers.
        sink: where the answers go.
        rows: how many have been answered.
        seconds: what that would have taken without the others.
    """

    answerer: Answerer
    sink: Sink
    rows: int = 0
    seconds: float = 0.0

    def batches(self, window: Sequence[LoadedRequest], stopped: Callable[[], bool]) -> Iterator[Sequence[Prediction]]:
        """Answer a window, a batch at a time."""
        batches = self.answerer.answer_window(window, stopped)
        while True:
            begun, saved = time.perf_counter(), self.answerer.seconds_saved
            batch = next(batches, None)
            if batch is None:
                return
            self.seconds += time.perf_counter() - begun + self.answerer.seconds_saved - saved
            yield batch


def take_turns(
    lines: Sequence[RunLine], rows: Rows, stopped: Callable[[], bool]
) -> Iterator[tuple[RunLine, Prediction]]:
    """Answer rows with every line in turn, a batch each; what is yielded has been written.

    Args:
        lines: at least one; the first loads the images of all.
        rows: requests that at least one line has no answer to.
        stopped: called after every batch; once it is true, finished answers are yielded and no more rows are read.
    """
    for window in lines[0].answerer.windows(rows, stopped=stopped):
        turns = [line.batches(_own_rows(line, window, alone=len(lines) == 1), stopped) for line in lines]
        for batches in zip_longest(*turns, fillvalue=()):
            for line, batch in zip(lines, batches, strict=True):
                for prediction in batch:
                    if line.sink.lacks(prediction.id):  # others were answered for the sake of their image's rows
                        line.sink.write(prediction)
                        line.rows += 1
                        yield line, prediction


def run_rows(
    requests: Requests,
    load: Callable[[], Answerer],
    sink: Sink,
    *,
    failures: FailureLimit | None = None,
    progress: Callable[[RunProgress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    profile: bool = False,
) -> Outcome:
    """Answer the rows that the sink lacks.

    Args:
        requests: all rows.
        load: makes the answerer; not called if no row is left.
        sink: open; it is closed at the end.
        failures: how many error rows are too many.
        progress: called at the start and after every row.
        stopped: called between batches and while no row comes; once it is true, the run ends in good order.
        profile: report where the time went.

    Raises:
        DeeplayerError: the run cannot go on; what was written is safe.
    """
    n_rows = n_left = None
    with sink:
        if requests.repeatable:
            n_rows, n_left = count_rows(requests, sink.unanswered)
        held = sink.predictions()
        if held is not None and n_rows and not n_left:
            totals = Totals.from_predictions(held, lambda *_: 1.0)
            sink.finish(totals.counts)
            return Outcome(totals, n_rows, n_answered=0, seconds=0.0)
        line = RunLine(load(), sink)
        totals = Totals(line.answerer.mean_keep)
        progress(RunProgress(totals, n_left, None))
        begun = time.perf_counter()
        for _, prediction in take_turns([line], _rows_to_answer(requests, line), stopped):
            totals.add(prediction)
            progress(RunProgress(totals, n_left, prediction))
            if failures is not None:
                failures.refuse(totals.rows, totals.errors)
        seconds = time.perf_counter() - begun
    told = line.answerer.profile(line.rows, seconds) if profile else None
    held = sink.predictions()  # only now that it is closed, retried rows are in their places
    if held is not None:
        totals = Totals.from_predictions(held, line.answerer.mean_keep)
    if not stopped():
        sink.finish(totals.counts, asdict(told) if told else None)
    return Outcome(totals, n_rows, line.rows, seconds, stopped(), line.answerer.advice(), told)


def run(
    source: str | Path | Sequence[str | Path] | Requests,
    grounder: RecordedAnswerer,
    output: str | Path,
    *,
    mode: str = "new",
    max_failures: str | int | None = None,
    progress: Callable[[RunProgress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Ground a source into a prediction file: what ``deeplayer ground SOURCE -o OUTPUT`` does, from Python.

    Args:
        source: a JSONL file, a folder, or several; or requests from `open_source`.
        grounder: answers.
        output: the file.
        mode: ``"new"``, ``"resume"``, ``"retry"`` (resume, and answer error rows again) or ``"overwrite"``.
        max_failures: error rows that are allowed: a number, or a percentage such as ``"5%"``.
        progress: called at the start and after every row.
        stopped: called between batches; once it is true, the run ends in good order, and ``"resume"`` continues it.

    Returns:
        Counts over the whole file, and what this run did.

    Raises:
        DeeplayerError: the run cannot go on; what was written is safe.
    """
    if mode.upper() not in ResumeMode.__members__:
        names = ", ".join(name.lower() for name in ResumeMode.__members__)
        raise DeeplayerError(f"there is no mode {mode!r}: choose from {names}")
    named = [] if isinstance(source, Requests) else [source] if isinstance(source, (str, Path)) else list(source)
    sources = [str(one) for one in named]
    requests = source if isinstance(source, Requests) else open_source(sources)
    refuse_same_file(Path(output), sources)
    failures = FailureLimit.parse(None if max_failures is None else str(max_failures))
    record = RunRecord(dict(grounder.deciding()), {"source": [in_text(one) for one in sources]})
    sink = open_sink(Path(output), record, ResumeMode[mode.upper()])
    return run_rows(requests, lambda: grounder, sink, failures=failures, progress=progress, stopped=stopped)


def _own_rows(line: RunLine, window: Sequence[LoadedRequest], *, alone: bool) -> Sequence[LoadedRequest]:
    """The rows of a window that a line is to answer: of several lines, some may have answered some rows before."""
    return window if alone else [loaded for loaded in window if line.sink.unanswered(loaded.request)]


def _rows_to_answer(requests: Requests, line: RunLine) -> Rows:
    """The rows without an answer, or all rows of their images; those of a pipe as they come."""
    rows: Rows = requests if requests.repeatable else fail_repeated(requests)
    unanswered = line.sink.unanswered
    if line.answerer.answers_whole_images:
        images = by_image(rows, lambda row: row)
        # All of an image's rows are looked at, although one would do: looking checks a row.
        rows = chain.from_iterable(image for image in images if any([unanswered(row) for row in image]))  # noqa: C419
    else:
        rows = (row for row in rows if unanswered(row))
    return rows if requests.repeatable else ArrivingRows(rows)
