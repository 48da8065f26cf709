"""Tables for a terminal, and their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_FOLDED = range(16, 7, -1)  # characters


def plain_table(*headings: str, title: str | None = None) -> Table:
    """Make a table without vertical lines, with a column for each of ``headings``."""
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(*headings, title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)


def two_lines(value: str, below: str) -> str:
    """A cell of two lines, the second one dim."""
    return f"{value}\n[dim]{below}[/dim]"


def p_value(p: float) -> str:
    """A p-value as text."""
    return "<1e-9" if p < 1e-9 else f"{p:.2g}"


def show_table(table: Table) -> None:
    """Print a table to stdout.

    On a small terminal, text folds to columns of 16 characters, or of fewer, down to 8. Numbers and headings are never
    cut: if they do not fit, the terminal wraps the lines.
    """
    from rich.console import Console

    console = Console()
    _fold(table, console)
    Console(width=max(console.width, _least_width(table, console))).print(table)


def fits(table: Table) -> bool:
    """Whether a table fits the terminal, once its text is folded."""
    from rich.console import Console

    console = Console()
    _fold(table, console)
    return _least_width(table, console) <= console.width


def _fold(table: Table, console: Console) -> None:
    for column in table.columns:
        column.overflow = "fold"
    for width in _FOLDED:
        if _least_width(table, console) <= console.width:
            break
        for column in table.columns:
            column.max_width = None if column.no_wrap else max(width, column.min_width or 0)


def _least_width(table: Table, console: Console) -> int:
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(max_width=10_000), table).minimum
