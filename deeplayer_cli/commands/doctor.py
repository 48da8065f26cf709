"""``deeplayer doctor``."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.options import option
from deeplayer_cli.errors import printable, root_cause

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEEDED = {"torch": "torch", "transformers": "transformers.models.internvl.modeling_internvl"}
"""Packages, and a module of each that also imports what the package needs itself."""


def doctor(
    offline: Annotated[bool, option("--offline", help="Leave the network alone.")] = False,
    json: options.Json = False,
) -> None:
    """Check this machine: what would fail or be slow here, and why.

    It tries the device, dtypes, attention kernels and the compiler, and looks at versions, memory, disk and the hub.
    Each line is `ok`, `warn` or `fail`. The exit code is 1 if something fails.
    """
    checks: list[dict[str, str]] = []
    for check in _checks(offline=offline):
        checks.append(check)
        if not json:
            typer.echo(printable("{status:4}  {name:9}  {message}".format(**check)))
    if json:
        typer.echo(orjson.dumps(checks, option=orjson.OPT_INDENT_2))
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(FINISHED_WITH_ERRORS)


def _checks(*, offline: bool) -> Iterator[dict[str, str]]:
    """Yield the checks; those of packages that cannot be imported are all that can be said then."""
    broken = False
    for package, module in _NEEDED.items():
        try:
            import_module(module)
        except Exception as error:  # a broken library raises ImportError, OSError, RuntimeError, ...
            broken = True
            reason = root_cause(error)
            way_out = f"install it again: pip install --force-reinstall {package}"
            if "torchvision" in reason:  # transformers imports it if it is there
                way_out = "install the torchvision that fits your torch, or none, since deeplayer does not use it"
            yield {"name": package, "status": "fail", "message": f"it cannot be imported ({reason}): {way_out}"}
    if broken:
        return
    from deeplayer_cli.checkpoints.doctor import examine

    for check in examine(offline=offline):
        yield asdict(check)
