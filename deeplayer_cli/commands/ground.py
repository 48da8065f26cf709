"""``deeplayer ground``."""

from __future__ import annotations

import logging
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeplayer_cli import __version__
from deeplayer_cli.commands import options
from deeplayer_cli.commands.failure_limit import FailureLimit
from deeplayer_cli.commands.options import INPUT, OUTPUT, Kernel, Query, Sharing, option
from deeplayer_cli.commands.stopping import stoppable
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deeplayer_cli.commands.profile import Profile
    from deeplayer_cli.grounder import Grounder
    from deeplayer_cli.schema import BadRequest, Request
    from deeplayer_cli.sinks import PredictionFile, Start
    from deeplayer_cli.sinks.stream import Stream
    from deeplayer_cli.sources import Requests, Sieve

logger = logging.getLogger("deeplayer")

FINISHED_WITH_ERRORS = 1

_OUT: dict[str, Any] = {"rich_help_panel": OUTPUT}


def ground(
    source: Annotated[
        list[str],
        typer.Argument(
            help="JSONL file, `-` for stdin, or a folder: of *.jsonl, or of images, with -e or a .txt beside each.",
            show_default=False,
        ),
    ],
    expression: Annotated[
        list[str] | None,
        typer.Option(  # no environment variable: a list of sentences has no safe form in one
            "--expression",
            "-e",
            help="For a folder of images: `the dog` or `label=the dog`; repeatable.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    image_root: Annotated[
        Path | None,
        option("--image-root", help="Folder that relative image paths start from.", rich_help_panel=INPUT),
    ] = None,
    limit: Annotated[
        int | None,
        option("--limit", min=1, max=sys.maxsize, help="Ground the first N rows only.", rich_help_panel=INPUT),
    ] = None,
    shard: Annotated[
        str | None,
        option("--shard", help="`i/n`: every n-th row, starting with row i (0 <= i < n).", rich_help_panel=INPUT),
    ] = None,
    allow_outside: Annotated[
        bool,
        option("--allow-outside", help="Let image paths leave the folder of --image-root.", rich_help_panel=INPUT),
    ] = False,
    max_pixels: Annotated[
        int | None,
        option("--max-pixels", min=1, help="Largest image decoded; by default 178,956,970.", rich_help_panel=INPUT),
    ] = None,
    exif_transpose: Annotated[
        bool,
        option(
            "--exif-transpose",
            help="Turn images as their EXIF says; boxes are then in the turned frame, not in the stored one.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool,
        option("--resume", help="Continue the run of the output file: rows in it are not asked again.", **_OUT),
    ] = False,
    retry_errors: Annotated[
        bool, option("--retry-errors", help="As --resume, and ask its error rows again.", **_OUT)
    ] = False,
    max_failures: Annotated[
        str | None,
        option("--max-failures", help="Stop when more rows than this have failed: `20`, or `5%`.", **_OUT),
    ] = None,
    strict: Annotated[bool, option("--strict", help="Stop at the first row that fails.", **_OUT)] = False,
    with_kept: Annotated[
        bool,
        option("--with-kept", help="Add `kept`, the indices of the visual tokens that stayed.", **_OUT),
    ] = False,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = Kernel.AUTO,
    max_tiles: options.MaxTiles = None,
    max_new_tokens: options.MaxNewTokens = 100,
    method: options.Method = "deep-layer",
    keep: options.Keep = 0.1,
    keep_tokens: options.KeepTokens = None,
    layer: options.Layer = None,
    query: options.QueryRows = Query.LAST,
    prior: options.Prior = None,
    seed: options.Seed = 0,
    share: options.Share = Sharing.EACH,
    batch_size: options.BatchSize = 32,
    batch_tokens: options.BatchTokens = None,
    compile_: options.Compile = None,
    workers: options.Workers = None,
    profile: Annotated[
        bool, option("--profile", help="Tell at the end where the time went.", rich_help_panel=options.SPEED)
    ] = False,
) -> None:
    """Ground every row of SOURCE: one JSON line out for each row in, in the same order."""
    from deeplayer_cli import sources
    from deeplayer_cli.pipeline import by_image
    from deeplayer_cli.sinks import RunRecord, Start, open_sink, refuse_same_file

    if share is Sharing.UNION and (shard is not None or limit is not None):
        raise DeeplayerError("--share union takes all rows of an image: --shard and --limit would take some of them")
    start = _start(overwrite=overwrite, resume=resume, retry_errors=retry_errors)
    failures = FailureLimit(rows=0) if strict else FailureLimit.parse(max_failures)
    refuse_same_file(output, source)
    requests = sources.open_source(
        source,
        expressions=[sources.parse_expression(text) for text in expression or []],
        image_root=image_root,
        confined=not allow_outside,
        share=sources.parse_shard(shard) if shard is not None else (0, 1),
        limit=limit,
    )

    from deeplayer_cli.grounder import Grounder, Settings, describe

    settings = Settings(
        method=method,
        keep=keep,
        keep_tokens=keep_tokens,
        layer=layer,
        query=query.value,
        prior=prior,
        max_tiles=max_tiles,
        max_pixels=max_pixels,
        exif_transpose=exif_transpose,
        max_new_tokens=max_new_tokens,
        seed=seed,
        with_kept=with_kept,
        share=share.value,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        compiled=compile_,
        workers=workers,
        profile=profile,
    )
    record = RunRecord(
        settings=describe(model, settings, revision=revision, dtype=dtype, device=device),
        circumstances={"version": __version__, "source": source, "model": model, "revision": revision},
    )
    if share is Sharing.UNION and requests.repeatable:
        deque(by_image(requests, lambda row: row), maxlen=0)  # what it refuses, it refuses before any work
    code = _run(
        requests,
        partial(Grounder.load, model, revision=revision, dtype=dtype, device=device, settings=settings),
        partial(open_sink, output, record, start),
        together=share is Sharing.UNION and start in (Start.RESUME, Start.RETRY),
        failures=failures,
        attention=attention,
        profile=profile,
    )
    if code:
        raise typer.Exit(code)


def _run(
    requests: Requests,
    load: Callable[[], Grounder],
    open_sink: Callable[[], PredictionFile | Stream],
    *,
    together: bool,
    failures: FailureLimit,
    attention: Kernel,
    profile: bool,
) -> int:
    """Ground what is not answered yet; returns the exit code."""
    from deeplayer_cli import sources
    from deeplayer_cli.commands.profile import Profile
    from deeplayer_cli.commands.progress import Progress, Totals
    from deeplayer_cli.engine.kernels import attention_kernel
    from deeplayer_cli.evaluation import read_predictions
    from deeplayer_cli.sinks import PredictionFile

    with stoppable() as stop, open_sink() as sink:
        path = sink.path if isinstance(sink, PredictionFile) else None
        rows = iter(requests)
        n_rows = n_left = None
        if requests.repeatable:
            n_rows, n_left = sources.count_rows(requests, sink.unanswered)
            if isinstance(sink, PredictionFile) and n_rows and not n_left:
                logger.info("nothing left to do: %s answers all %d rows", path, n_rows)
                totals = Totals.of(read_predictions(sink.path), lambda *_: 1.0)
                _finish(sink, totals.counts, n_rows)
                return FINISHED_WITH_ERRORS if totals.errors else 0
        else:
            rows = sources.Sieve(sources.fail_repeated(rows), rows.ready)
        rows = _rows_to_ask(rows, sink, together=together)
        grounder = load()
        totals = Totals(grounder.mean_keep)
        with Progress(totals, n_left) as progress, attention_kernel(attention), _saying_how_to_go_on(path):
            for prediction in grounder.ground(rows, stopped=lambda: stop.requested, ready=rows.ready):
                if not sink.lacks(prediction.id):
                    continue  # asked again for the sake of its image's other rows
                sink.write(prediction)
                progress.advance(prediction)
                failures.refuse(totals.rows, totals.errors)
    told = Profile.of(grounder, totals.rows, progress.seconds) if profile else None
    if isinstance(sink, PredictionFile):
        totals = Totals.of(read_predictions(sink.path), grounder.mean_keep)
    logger.info(totals.summary(progress.seconds))
    if grounder.settings.share == "each" and (advice := grounder.spending.advice):
        logger.info(advice)
    if told:
        logger.info("where the time went: %s", told)
    if stop.requested:
        logger.info("stopped%s", f": the same command with --resume continues {path}" if path else "")
        return stop.exit_code
    if isinstance(sink, PredictionFile):
        _finish(sink, totals.counts, n_rows, told)
    return FINISHED_WITH_ERRORS if totals.errors else 0


def _rows_to_ask(
    rows: Sieve[Request | BadRequest], sink: PredictionFile | Stream, *, together: bool
) -> Sieve[Request | BadRequest]:
    """The rows without an answer; where those of an image go ``together``, all rows of their images."""
    from deeplayer_cli.pipeline import by_image
    from deeplayer_cli.sources import Sieve

    if not together:
        return Sieve(rows, rows.ready, sink.unanswered)
    images = by_image(rows, lambda row: row)
    # All of an image's rows are looked at, although one would do: looking checks a row.
    lacking = (image for image in images if any([sink.unanswered(row) for row in image]))  # noqa: C419
    return Sieve(chain.from_iterable(lacking), rows.ready)


def _start(*, overwrite: bool, resume: bool, retry_errors: bool) -> Start:
    from deeplayer_cli.sinks import Start

    if overwrite and (resume or retry_errors):
        raise DeeplayerError("--overwrite empties what --resume would continue: give one of them")
    if retry_errors:
        return Start.RETRY
    return Start.RESUME if resume else Start.OVERWRITE if overwrite else Start.NEW


@contextmanager
def _saying_how_to_go_on(output: Path | None) -> Iterator[None]:
    """Whatever ends the run, what was written is safe."""
    try:
        yield
    except DeeplayerError as error:
        if output is None:
            raise
        raise DeeplayerError(f"{error} (then continue {output} with --resume)") from error


def _finish(sink: PredictionFile, counts: dict[str, int], n_rows: int | None, profile: Profile | None = None) -> None:
    """Note in the record how many rows the finished file has; say so if they are not those of the input."""
    replace(sink.record, counts=counts, profile=asdict(profile) if profile else sink.record.profile).save(sink.path)
    if n_rows is not None and counts["rows"] != n_rows:
        logger.warning("%s holds %d rows, the input %d: the input has changed", sink.path, counts["rows"], n_rows)
