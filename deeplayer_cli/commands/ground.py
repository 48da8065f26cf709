"""``deeplayer ground``."""

from __future__ import annotations

import logging
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import INPUT, OUTPUT, Kernel, Query, option

logger = logging.getLogger("deeplayer")

FINISHED_WITH_ERRORS = 1


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
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    with_kept: Annotated[
        bool,
        option("--with-kept", help="Add `kept`, the indices of the visual tokens that stayed.", rich_help_panel=OUTPUT),
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
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 8,
    compile_: options.Compile = None,
    workers: options.Workers = None,
) -> None:
    """Ground every row of SOURCE: one JSON line out for each row in, in the same order."""
    from deeplayer_cli import sources
    from deeplayer_cli.commands.progress import Progress, Totals
    from deeplayer_cli.sinks import JsonlWriter, refuse_occupied, refuse_same_file

    share = sources.parse_shard(shard) if shard is not None else (0, 1)
    expressions = [sources.parse_expression(text) for text in expression or []]
    refuse_same_file(output, source)
    refuse_occupied(output, overwrite=overwrite)
    rows = sources.open_source(source, expressions=expressions, image_root=image_root)
    rows = islice(sources.shard(rows, *share), limit)

    from deeplayer_cli.engine.kernels import attention_kernel
    from deeplayer_cli.grounder import Grounder

    grounder = Grounder.load(
        model,
        revision=revision,
        dtype=dtype,
        device=device,
        method=method,
        keep=keep,
        keep_tokens=keep_tokens,
        layer=layer,
        query=query.value,
        max_tiles=max_tiles,
        max_new_tokens=max_new_tokens,
        seed=seed,
        with_kept=with_kept,
        batch_size=batch_size,
        compiled=compile_,
        workers=workers,
    )
    with JsonlWriter(output, overwrite=overwrite) as writer, attention_kernel(attention):
        totals = Totals(grounder.n_layers)
        with Progress(
            totals, _expected_rows(sources.count_rows(source, expressions=expressions), share, limit)
        ) as progress:
            for prediction in grounder.ground(rows):
                writer.write(prediction.to_json())
                progress.advance(prediction)
    logger.info(totals.summary(progress.seconds))
    if totals.errors:
        raise typer.Exit(FINISHED_WITH_ERRORS)


def _expected_rows(in_source: int | None, share: tuple[int, int], limit: int | None) -> int | None:
    if in_source is None:
        return limit
    index, count = share
    mine = len(range(index, in_source, count))
    return mine if limit is None else min(mine, limit)
