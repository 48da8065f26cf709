"""Tables and pictures that a command writes besides what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from deeplayer_cli.commands.options import OUTPUT, option

if TYPE_CHECKING:
    from collections.abc import Iterable

Csv = Annotated[Path | None, option("--csv", help="Also write the table to this CSV file.", rich_help_panel=OUTPUT)]


def refuse_bad_outputs(csv: Path | None, plot: Path | None, *, inputs: Iterable[str | Path], overwrite: bool) -> None:
    """Refuse output files that cannot be written, before any work.

    Raises:
        DeeplayerError: a file is an input, exists already, cannot be written, or cannot be drawn.
    """
    from deeplayer_cli.sinks.output_file import refuse_output

    for path in (csv, plot):
        if path is not None:
            refuse_output(path, inputs=inputs, overwrite=overwrite)
    if plot is not None:
        from deeplayer_cli.report.tradeoff import require_plot

        require_plot(plot)
