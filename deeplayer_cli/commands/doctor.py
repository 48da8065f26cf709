"""``deeplayer doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import option
from deeplayer_cli.errors import printable

FAILED = 1


def doctor(
    offline: Annotated[bool, option("--offline", help="Leave the network alone.")] = False,
    json: options.Json = False,
) -> None:
    """Check this machine: what would fail or be slow here, and why.

    It tries the device, dtypes, attention kernels and the compiler, and looks at versions, memory, disk and the hub.
    Each line is `ok`, `warn` or `fail`. The exit code is 1 if something fails.
    """
    from deeplayer_cli.checkpoints.doctor import examine

    checks = []
    for check in examine(offline=offline):
        checks.append(check)
        if not json:
            typer.echo(printable(f"{check.status:4}  {check.name:9}  {check.message}"))
    if json:
        typer.echo(orjson.dumps([asdict(check) for check in checks], option=orjson.OPT_INDENT_2))
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(FAILED)
