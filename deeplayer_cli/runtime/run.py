"""The run loop: rows from a source, through a grounder, into a sink, until all are answered or the run must end.

The command line and Python programs run this loop. It does not import torch: an `Answerer` gives the answers.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.errors import DeeplayerError, not_one_of
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.runtime.failure_limit import FailureLimit
from deeplayer_cli.runtime.totals import Totals
from deeplayer_cli.schema import GoldReader, in_text
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sinks import ResumeMode, RunRecord, open_sink, refuse_same_file
from deeplayer_cli.sources import ArrivingRows, Requests, by_image, count_rows, fail_repeated, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from deeplayer_cli.runtime.profile import Profile
    from deeplayer_cli.schema import BadRequest, Prediction, Request
    from deeplayer_cli.sinks import Sink

    Rows = Iterable[Request | BadRequest]

logger = logging.getLogger("deeplayer")


class Answerer(Protocol):
    """The interface that the run loop needs to get answers; a `Grounder` has it."""

    @property
    def answers_whole_images(self) -> bool:
        """Whether all rows of an image must be answered together."""

    @property
    def mean_keep(self) -> Callable[[int, int], float]:
        """Returns the share of visual tokens that a layer sees on average, for the numbers of all and of kept ones."""

    def ground(self, rows: Rows, *, stopped: Callable[[], bool]) -> Iterator[Prediction]:
        """Yield one prediction for every row, in order, as soon as its batch is answered.

        Args:
            rows: requests. Rows of an `ArrivingRows` are answered when they come.
            stopped: once it is true, finished answers are yielded and no more rows are read.
        """

    def advice(self) -> str | None:
        """Return what to know about the rows so far: boxes that mean nothing, a cheaper method; None otherwise."""

    def profile(self, rows: int, seconds: float) -> Profile:
        """Return where the time of a run went that answered ``rows`` rows in ``seconds``."""


class RecordedAnswerer(Answerer, Protocol):
    """An answerer that knows what its answers depend on."""

    def deciding(self) -> Mapping[str, object]:
        """Return everything that an answer depends on, besides its row and image."""


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        totals: of this run, so far.
        n_left: number of rows without an answer when the run began; None if it is not known.
        prediction: the newest prediction; None at the start.
    """

    totals: Totals
    n_left: int | None
    prediction: Prediction | None


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        totals: over all rows of the sink, including those of earlier runs; over this run's rows if the sink is a
            stream.
        n_rows: number of rows of the source; None if it can be read only once.
        n_answered: number of rows that this run answered.
        seconds: that this run took, without loading the model.
        stopped: whether the run was stopped before the last row.
        advice: see `Answerer.advice`.
        profile: where the time went, if it was requested.
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
        failures: the limit of error rows.
        progress: called at the start and after every row.
        stopped: called between batches and while no row has come; once it is true, the run ends in good order.
        profile: report where the time went.

    Raises:
        DeeplayerError: the run cannot go on; the rows written so far are safe.
    """
    n_rows = n_left = None
    with sink:
        if requests.repeatable:
            n_rows, n_left = _survey(requests, sink)
        written = sink.predictions()
        if written is not None and n_rows and not n_left:
            totals = Totals.from_predictions(written, lambda *_: 1.0)
            sink.finish(totals.counts, part=requests.part)
            return Outcome(totals, n_rows, n_answered=0, seconds=0.0)
        answerer = load()
        totals = Totals(answerer.mean_keep)
        progress(RunProgress(totals, n_left, None))
        begun = time.perf_counter()
        with _rows_to_answer(requests, sink, whole_images=answerer.answers_whole_images) as rows:
            for prediction in answerer.ground(rows, stopped=stopped):
                if not sink.lacks(prediction.id):  # a union answers all rows of an image again
                    continue
                sink.write(prediction)
                totals.add(prediction)
                progress(RunProgress(totals, n_left, prediction))
                if failures is not None and prediction.error is not None:
                    failures.refuse(totals.rows, totals.errors, n_left, prediction.error["message"])
        seconds, n_answered = time.perf_counter() - begun, totals.rows
    spent = answerer.profile(n_answered, seconds) if profile else None
    written = sink.predictions()  # retried rows are in their places only after the sink is closed
    if written is not None:
        totals = Totals.from_predictions(written, answerer.mean_keep)
    if not stopped():
        sink.finish(totals.counts, asdict(spent) if spent else None, requests.part)
    return Outcome(totals, n_rows, n_answered, seconds, stopped(), answerer.advice(), spent)


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
    """Ground a source into a prediction file, as ``deeplayer ground SOURCE -o OUTPUT`` does.

    Args:
        source: a JSONL file, a folder, or several; or requests from `open_source`.
        grounder: gives the answers.
        output: the prediction file.
        mode: ``"new"``, ``"resume"``, ``"retry"`` (resume, and answer error rows again) or ``"overwrite"``.
        max_failures: error rows that are allowed: a number, or a percentage such as ``"5%"``.
        progress: called at the start and after every row.
        stopped: called between batches; once it is true, the run ends in good order, and ``"resume"`` continues it.

    Returns:
        The counts over the whole file, and the result of this run.

    Raises:
        DeeplayerError: the run cannot go on; the rows written so far are safe.
    """
    if mode.upper() not in ResumeMode.__members__:
        raise DeeplayerError(not_one_of("mode", mode, map(str.lower, ResumeMode.__members__)))
    named = [] if isinstance(source, Requests) else [source] if isinstance(source, (str, Path)) else list(source)
    sources = [str(one) for one in named]
    settings = dict(grounder.deciding())
    size_of = partial(read_size, exif_transpose=bool(settings.get("exif_transpose")))
    requests = source if isinstance(source, Requests) else open_source(sources, gold_reader=GoldReader(size_of=size_of))
    refuse_same_file(Path(output), sources)
    failures = FailureLimit.parse(None if max_failures is None else str(max_failures))
    record = RunRecord(settings, {"source": [in_text(one) for one in sources]})
    sink = open_sink(Path(output), record, ResumeMode[mode.upper()])
    return run_rows(requests, lambda: grounder, sink, failures=failures, progress=progress, stopped=stopped)


def _survey(requests: Requests, sink: Sink) -> tuple[int, int]:
    """Count all rows and those without an answer; warn of answered rows whose gold box or other fields have changed."""
    n_changed, first = 0, ""

    def is_unanswered(row: Request | BadRequest) -> bool:
        nonlocal n_changed, first
        if sink.outdated(row):
            n_changed, first = n_changed + 1, first or row.where
        return sink.unanswered(row)

    counts = count_rows(requests, is_unanswered)
    if n_changed:
        logger.warning(
            "%s with another gold box or other fields now, the first at %s: %s keeps the old ones; use "
            "score --gold, or --overwrite",
            *(counted(n_changed, "answered row"), first, sink.path),
        )
    return counts


@contextmanager
def _rows_to_answer(requests: Requests, sink: Sink, *, whole_images: bool) -> Iterator[Rows]:
    """Yield the rows without an answer, or all rows of their images; the rows of a pipe as they come."""
    rows: Rows = requests if requests.repeatable else fail_repeated(requests)
    unanswered = sink.unanswered
    if whole_images:
        images = by_image(rows, lambda row: row)
        # A list, so that `unanswered` checks every row of the image, not only the rows up to the first unanswered one.
        rows = chain.from_iterable(image for image in images if any([unanswered(row) for row in image]))  # noqa: C419
    else:
        rows = (row for row in rows if unanswered(row))
    if requests.repeatable:
        yield rows
        return
    with closing(ArrivingRows(rows)) as arriving:
        yield arriving
