"""``deeplayer ground``."""

from __future__ import annotations

import logging
import shutil
import sys
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeplayer_cli.commands import cluster, options
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.options import INPUT, OUTPUT, Kernel, PositionIds, Query, Sharing, option
from deeplayer_cli.commands.requests import circumstances_of, open_requests
from deeplayer_cli.commands.show import drawing
from deeplayer_cli.commands.stopping import stoppable
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deeplayer_cli.commands.stopping import Stop
    from deeplayer_cli.runtime.failure_limit import FailureLimit
    from deeplayer_cli.runtime.run import Answerer, Outcome, RunProgress
    from deeplayer_cli.schema import Prediction
    from deeplayer_cli.sinks import ResumeMode, Sink
    from deeplayer_cli.sources import Requests

logger = logging.getLogger("deeplayer")

_OUT: dict[str, Any] = {"rich_help_panel": OUTPUT}


def ground(
    context: typer.Context,
    source: Annotated[
        list[str],
        typer.Argument(
            help="JSONL file, `-` for stdin, image, or folder of either; images need -e, or a .txt beside each.",
            show_default=False,
        ),
    ],
    expression: options.Expressions = None,
    image_root: options.ImageRoot = None,
    from_format: options.FromFormat = None,
    box_format: options.BoxFormat = None,
    limit: Annotated[
        int | None,
        option("--limit", min=1, help="Ground the first N rows only.", rich_help_panel=INPUT),
    ] = None,
    shard: Annotated[
        str | None,
        option(
            "--shard", help="`i/n`: all rows of every n-th image, from image i on (0 <= i < n).", rich_help_panel=INPUT
        ),
    ] = None,
    allow_outside: Annotated[
        bool,
        option("--allow-outside", help="Allow image paths outside of --image-root.", rich_help_panel=INPUT),
    ] = False,
    max_pixels: Annotated[
        int | None,
        option("--max-pixels", min=1, help="Largest image to decode; by default 178,956,970.", rich_help_panel=INPUT),
    ] = None,
    exif_transpose: Annotated[
        bool,
        option(
            "--exif-transpose",
            help="Turn images by their EXIF orientation; boxes are then in the turned frame, not in the stored one.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    output: options.Output = None,
    jsonl: Annotated[
        bool,
        option("--jsonl", help="Write JSON lines to a terminal too, where rows are else shown as a table.", **_OUT),
    ] = False,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool,
        option("--resume", help="Continue the run of the output file; skip the rows that it contains.", **_OUT),
    ] = False,
    retry_errors: Annotated[
        bool, option("--retry-errors", help="Like --resume, and answer the error rows again.", **_OUT)
    ] = False,
    max_failures: Annotated[
        str | None,
        option(
            "--max-failures",
            help="Stop when more rows than this have failed: `20`, or `5%` of the rows so far, of at least 50.",
            **_OUT,
        ),
    ] = None,
    strict: Annotated[
        bool,
        option("--strict", help="Stop at the first row that fails, or has words that the model does not know.", **_OUT),
    ] = False,
    with_kept: Annotated[
        bool,
        option("--with-kept", help="Add `kept` and `tiles`: which visual tokens were kept, and their places.", **_OUT),
    ] = False,
    show: Annotated[
        Path | None,
        option("--show", help="Also draw every answered row into this folder, as `deeplayer show` does.", **_OUT),
    ] = None,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attention: options.Attention = Kernel.AUTO,
    max_tiles: options.MaxTiles = None,
    max_new_tokens: options.MaxNewTokens = 100,
    method: options.Method = "deep-layer",
    keep: options.KeepOrAuto = None,
    keep_tokens: options.KeepTokens = None,
    fallback: options.Fallback = None,
    layer: options.Layer = None,
    query: options.QueryRows = Query.LAST,
    positions: options.Positions = PositionIds.KEEP,
    prior: options.Prior = None,
    seed: options.Seed = 0,
    share: options.Share = Sharing.EACH,
    batch_size: options.BatchSize = 32,
    batch_tokens: options.BatchTokens = None,
    compile_: options.Compile = None,
    workers: options.Workers = None,
    image_timeout: options.ImageTimeout = 60.0,
    profile: Annotated[
        bool, option("--profile", help="Report at the end where the time went.", rich_help_panel=options.SPEED)
    ] = False,
    ray: cluster.Ray = None,
    num_workers: cluster.NumWorkers = None,
    gpus_per_worker: cluster.GpusPerWorker = None,
    cpus_per_worker: cluster.CpusPerWorker = 1.0,
    ship_images: cluster.ShipImages = False,
) -> None:
    """Ground every row of SOURCE: one JSON line out for each row in, in the same order."""
    from deeplayer_cli import sources
    from deeplayer_cli.runtime.failure_limit import FailureLimit
    from deeplayer_cli.runtime.prepare import prepare
    from deeplayer_cli.schema import in_text
    from deeplayer_cli.sinks import ResumeMode, RunRecord, TerminalTable, open_sink, refuse_same_file

    if share is Sharing.UNION and limit is not None:
        raise DeeplayerError("--share union needs all rows of an image: leave out --limit, or use --share each")
    resources = cluster.ray_resources(context)
    mode = _resume_mode(overwrite=overwrite, resume=resume, retry_errors=retry_errors)
    failures = FailureLimit(rows=0) if strict else FailureLimit.parse(max_failures)
    refuse_same_file(output, source)
    requests = open_requests(
        source,
        from_format=from_format,
        embedded=Path(f"{output}.images") if output is not None else None,
        expressions=sources.parse_expressions(expression or []),
        image_root=image_root,
        confined=not allow_outside,
        box_format=box_format.value if box_format else None,
        exif_transpose=exif_transpose,
        shard=sources.parse_shard(shard) if shard is not None else (0, 1),
        limit=limit,
    )
    settings: dict[str, Any] = {
        "method": method,
        **options.keep_settings(keep),
        "keep_tokens": keep_tokens,
        "fallback": fallback,
        "layer": layer,
        "query": query.value,
        "positions": positions.value,
        "prior": prior,
        "max_tiles": max_tiles,
        "max_pixels": max_pixels,
        "exif_transpose": exif_transpose,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "with_kept": with_kept,
        "share": share.value,
        "batch_size": batch_size,
        "batch_tokens": batch_tokens,
        "compiled": compile_,
        "attention": attention.value,
        "workers": workers,
        "image_timeout": image_timeout,
        "profile": profile,
        "strict": strict,
    }
    options.agree_to_download(model, revision, yes=yes)
    prepare_run = context.obj or prepare
    if ray is not None:
        from deeplayer_cli.runtime.ray_run import on_ray

        prepare_run = context.with_resource(on_ray(prepare_run, ray, resources, ship_images=ship_images))
    prepared = prepare_run(model, revision=revision, dtype=dtype, device=device, settings=settings)
    expressions = [in_text(one) for one in expression or []]
    circumstances = circumstances_of(source, image_root, model, revision, expressions=expressions)
    record = RunRecord(prepared.deciding, circumstances)
    if share is Sharing.UNION and requests.repeatable:
        deque(sources.by_image(requests, lambda row: row), maxlen=0)  # checks the order of the images before any work
    images = {"image_root": image_root, "confined": not allow_outside, "turned": exif_transpose}
    with stoppable() as stop, drawing(show, source, images, new=mode is ResumeMode.NEW) as draw:
        as_table = output is None and not jsonl and mode is ResumeMode.NEW and sys.stdout.isatty()
        sink = TerminalTable(shutil.get_terminal_size().columns) if as_table else open_sink(output, record, mode)
        options.warn_of_idle_options(context)  # imports torch, so after every refusal that needs none
        outcome = _run(requests, prepared.load, sink, failures, stop, draw, profile=profile)
    _report(outcome, output if sink.path else None)
    if stop.requested:
        raise typer.Exit(stop.exit_code)
    if outcome.totals.errors:
        raise typer.Exit(FINISHED_WITH_ERRORS)


def _run(
    requests: Requests,
    load: Callable[[], Answerer],
    sink: Sink,
    failures: FailureLimit,
    stop: Stop,
    draw: Callable[[Prediction], None],
    *,
    profile: bool,
) -> Outcome:
    from deeplayer_cli.commands.progress import ProgressBar
    from deeplayer_cli.runtime.run import run_rows
    from deeplayer_cli.sinks import TerminalTable

    def stoppable_load() -> Answerer:
        with stop.loading():
            return load()

    def show_progress(progress: RunProgress) -> None:
        bar.show(progress)
        if progress.prediction is not None:
            draw(progress.prediction)

    with ProgressBar(hidden=isinstance(sink, TerminalTable)) as bar, _resume_hint(sink.path):
        return run_rows(
            requests,
            stoppable_load,
            sink,
            failures=failures,
            progress=show_progress,
            stopped=lambda: stop.requested,
            profile=profile,
        )


def _report(outcome: Outcome, path: Path | None) -> None:
    """Log the result of a run."""
    from deeplayer_cli.schema.values import counted

    counts = outcome.counts
    if path and outcome.n_rows and not outcome.n_answered and not outcome.stopped:
        logger.info("nothing left to do: %s contains %s", path, counted(counts["rows"], "row"))
    else:
        logger.info(outcome.totals.summary(outcome.seconds))
    for sentence in outcome.totals.failures.sentences():
        logger.warning(sentence)
    if outcome.advice:
        logger.info(outcome.advice)
    if outcome.profile:
        logger.info("where the time went: %s", outcome.profile)
    if outcome.stopped:
        logger.info("stopped%s", f": the same command with --resume continues {path}" if path else "")
    elif path and outcome.n_rows is not None and counts["rows"] != outcome.n_rows:
        logger.warning(
            "%s contains %s, but the input has %s: it has changed, or the others are of another --shard or --limit",
            *(path, counted(counts["rows"], "row"), f"{outcome.n_rows:,}"),
        )


def _resume_mode(*, overwrite: bool, resume: bool, retry_errors: bool) -> ResumeMode:
    from deeplayer_cli.sinks import ResumeMode

    if overwrite and (resume or retry_errors):
        raise DeeplayerError("--overwrite empties the file that --resume would continue: give one of the two")
    if retry_errors:
        return ResumeMode.RETRY
    return ResumeMode.RESUME if resume else ResumeMode.OVERWRITE if overwrite else ResumeMode.NEW


@contextmanager
def _resume_hint(output: Path | None) -> Iterator[None]:
    """Add to the message of a `DeeplayerError` how to continue; the rows written so far are safe."""
    try:
        yield
    except DeeplayerError as error:
        if output is None:
            raise
        raise DeeplayerError(f"{error} (then continue {output} with --resume)") from error
