"""``deeplayer data merge``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import option

logger = logging.getLogger("deeplayer")


def merge(
    parts: Annotated[
        list[Path], typer.Argument(help="The files that the shards of a run wrote, in any order.", show_default=False)
    ],
    output: Annotated[Path, option("--output", "-o", command="merge", help="Write all rows here.")],
    like: Annotated[
        list[str] | None,
        option(
            "--like",
            help="JSONL file or folder of the requests: take the order from it, and check that every request has its "
            "row; repeatable.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Put the shards of a run together, in input order.

    The result is the file that one run without `--shard` would have written, with its record beside it. A missing,
    doubled or unfinished shard and a shard of another run are refused. The order comes from the `source` of the rows.
    Runs on several sources need `--like`.
    """
    from deeplayer_cli import sources
    from deeplayer_cli.schema import GoldReader
    from deeplayer_cli.schema.values import counted
    from deeplayer_cli.sinks.merging import merge_parts
    from deeplayer_cli.sinks.output_file import is_stream, refuse_output
    from deeplayer_cli.sinks.run_record import record_path

    for path in [output] if is_stream(output) else [output, record_path(output)]:
        refuse_output(path, inputs=[*parts, *map(record_path, parts), *(like or [])], overwrite=overwrite)
    # Gold boxes are not looked at; a stated format keeps them from being judged.
    requests = sources.open_source(like, gold_reader=GoldReader("xyxy")) if like else None
    record = merge_parts(parts, output, requests)
    logger.info("%s: %s from %s", output, counted((record.counts or {})["rows"], "row"), counted(len(parts), "part"))
