"""Shows a comparison by split: methods in lines, splits in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.errors import printable
from deeplayer_cli.report.tables import fits, plain_table, show_table, two_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from deeplayer_cli.evaluation.published_tables import PublishedTable
    from deeplayer_cli.evaluation.score import Rate
    from deeplayer_cli.evaluation.splits import SplitLine, SplitTable

_EXPLANATION = (
    "Acc@0.5 in percent, with 95% intervals clustered by image. Below each split: its rows with a gold box; all "
    "count, failures as wrong. average: mean over the splits. change: of the average to {reference}, paired by row. "
    "Methods compare fairly only at equal cost."
)


def show(table: SplitTable, published: PublishedTable | None = None) -> None:
    """Print a comparison by split to stdout; splits that do not fit the terminal go into a table below."""
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    for first, last in _blocks(table):
        show_table(_part(table, first, last))
    if table.reference is not None:
        console.print(_EXPLANATION.format(reference=escape(printable(table.reference))))
    if published is not None:
        console.print(f"Published: {published.title}. {published.note}\nSource: {published.source}", highlight=False)


def _blocks(table: SplitTable) -> Iterator[tuple[int, int]]:
    """The splits of each table that fits the terminal, as the numbers of the first one and of the one after the last.

    The last table has the averages too.
    """
    n_splits, first = len(table.splits), 0
    while first < n_splits:
        last = first + 1
        while last < n_splits and fits(_part(table, first, last + 1)):
            last += 1
        yield first, last
        first = last


def _part(table: SplitTable, first: int, last: int) -> Table:
    """The lines of a comparison with some of its splits; with the averages behind the last split."""
    from rich.markup import escape

    has_averages = last == len(table.splits)
    shown = plain_table()
    shown.add_column("method\nkeep, layer", min_width=14)
    for number, split in list(enumerate(table.splits))[first:last]:
        # At a space, a narrow terminal would cut a heading.
        name = escape(printable(split)).replace(" ", "\n")
        shown.add_column(f"{name}\n{table.counts[number]}" if table.counts else name, justify="right", no_wrap=True)
    for heading in ("average", "change") if has_averages else ():
        shown.add_column(heading, justify="right", no_wrap=True)
    for line in table.lines:
        layer = "" if line.layer is None else str(line.layer)
        below = ", ".join(part for part in (_keep(line), layer, "published" if line.published else "") if part)
        cells = [_cell(rate, exact=line.published) for rate in line.accuracies[first:last]]
        averages = [_cell(line.average, exact=line.published), _change(line)] if has_averages else []
        shown.add_row(two_lines(escape(printable(line.method)), below), *cells, *averages)
    return shown


def headings_and_rows(table: SplitTable) -> tuple[list[str], list[list[str]]]:
    """A comparison by split as text, with percentages, for `text_table`."""
    headings = ["method", "keep", "layer", *map(printable, table.splits), "average", "change"]
    rows = [
        [
            printable(line.method) + (" (published)" if line.published else ""),
            _keep(line) or "-",
            "-" if line.layer is None else str(line.layer),
            *("-" if rate is None else f"{100 * rate.value:.2f}" for rate in line.accuracies),
            f"{100 * line.average.value:.2f}",
            "-" if (one := line.difference) is None else f"{100 * one.value:+.2f} ({_points(one.low, one.high)})",
        ]
        for line in table.lines
    ]
    return headings, rows


def csv_rows(table: SplitTable) -> list[dict[str, object]]:
    """A comparison by split as rows of equal fields, with all digits."""
    rows = []
    for line in table.lines:
        row: dict[str, object] = {"method": line.method, "keep": line.keep, "layer": line.layer}
        row["published"] = line.published
        for name, rate in zip((*table.splits, "average"), (*line.accuracies, line.average), strict=True):
            interval = None if line.published else rate
            row |= {name: rate and rate.value, f"{name}_low": interval and interval.low}
            row[f"{name}_high"] = interval and interval.high
        for part in ("value", "low", "high", "p"):
            row[f"difference_{part}"] = line.difference and getattr(line.difference, part)
        rows.append(row)
    return rows


def _cell(rate: Rate | None, *, exact: bool) -> str:
    if rate is None:
        return "-"
    value = f"{100 * rate.value:.1f}"
    return value if exact else two_lines(value, f"{100 * rate.low:.0f}-{100 * rate.high:.0f}")


def _change(line: SplitLine) -> str:
    one = line.difference
    return "-" if one is None else two_lines(f"{100 * one.value:+.1f}", f"{100 * one.low:+.0f}/{100 * one.high:+.0f}")


def _keep(line: SplitLine) -> str:
    return "" if line.keep is None else f"{line.keep:.4g}"


def _points(low: float, high: float) -> str:
    return f"{100 * low:+.2f} to {100 * high:+.2f}"
