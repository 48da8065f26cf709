"""``deeplayer verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.options import option

_MARKS = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: "[yellow]-[/yellow]"}


def verify(
    model: Annotated[
        str, typer.Argument(help="Model, as for `ground --model`.", envvar="DEEPLAYER_MODEL", show_default=False)
    ],
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    data: Annotated[
        str | None, option("--data", help="Requests to compare answers on, such as sample_data/requests.jsonl.")
    ] = None,
) -> None:
    """Check that a model gives the original's results on this machine. Run this first with real weights."""
    from rich.console import Console
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    from deeplayer_cli import sources
    from deeplayer_cli.reference import verify as verification
    from deeplayer_cli.report.tables import show_table

    rows = sources.open_source([data]) if data else None
    options.agree_to_download(model, revision, yes=yes)
    table = Table("check", "result", "detail")
    failed = False
    # An 8B model takes minutes: each result is shown at once, and stays if a later check fails.
    console = Console()
    try:
        with Live(table, console=console, transient=True):
            for check in verification.verify(model, revision=revision, dtype=dtype, device=device, rows=rows):
                table.add_row(check.name, _MARKS[check.passed], escape(check.detail))
                failed |= check.passed is False
    finally:
        if table.row_count:
            show_table(table)
    if failed:
        raise typer.Exit(FINISHED_WITH_ERRORS)
