"""Prints a comparison as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.errors import printable
from deeplayer_cli.report.tables import p_value, plain_table, show_table, two_lines
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from deeplayer_cli.evaluation.compare import ComparedRun, Difference
    from deeplayer_cli.evaluation.matching import Unreachable

_HEADINGS = ("keep\nmean", "GFLOPs\nKV MB", "Acc@0.5", "retained", "change", "p", "fails", "speed")
_EXPLANATION = (
    "95% intervals, clustered by image. mean: share of visual tokens that a layer sees, as a mean over layers. GFLOPs, "
    "KV: computed for vision and prompt of a row, as the only expression about its image, without the answer; a scout "
    "counts in GFLOPs only. Methods compare fairly only at equal cost. retained, change, p: accuracy against "
    "{reference}, paired by row. fails: rows without a box, and error rows, of all rows."
)
_SPEED = " speed: times as fast as {reference}, so larger is faster; as if the method ran alone; not a benchmark."


def show(lines: Sequence[ComparedRun], unreachable: Sequence[Unreachable], reference: str) -> None:
    """Print a comparison to stdout.

    Args:
        lines: the lines of the comparison, at least one.
        unreachable: the methods that cannot reach the cost of the first method.
        reference: name of the line that the others are compared with.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    show_table(_table(lines, unreachable))
    for one in unreachable:
        unit, shown = ("GFLOPs", _short) if one.match == "flops" else ("mean keep", _percent)
        console.print(
            f"{escape(printable(one.label))} cannot reach {shown(one.target)} {unit}: from one visual token per image "
            f"to all of them, its cost goes from {shown(one.low)} to {shown(one.high)}."
        )
    if any(one.low > one.target for one in unreachable):
        console.print(
            "To compare all of them, name the method whose lowest cost is the greatest first in --methods, and the "
            "others match its cost; or drop after an earlier layer, as in deep-layer@layer=2."
        )
    run = lines[0].run
    explanation = f"{_EXPLANATION}{_SPEED if _has_speed(lines) else ''}".format(reference=escape(reference))
    n_without_gold = run.n_rows - len(run.right)
    skipped = f" {counted(n_without_gold, 'row')} without gold: not counted." if n_without_gold else ""
    console.print(
        f"{counted(len(run.right), 'row')} with gold, {counted(len(set(run.images)), 'image')};{skipped} {explanation}"
    )


def headings_and_rows(lines: Sequence[ComparedRun]) -> tuple[list[str], list[list[str]]]:
    """A comparison as text, for `text_table`."""
    headings = ["method", "layer", "keep", "mean keep", "GFLOPs", "KV MB", "Acc@0.5 (95%)", "retained", "change (95%)"]
    rows = []
    for line in lines:
        run, accuracy, one = line.run, line.accuracy, line.difference
        costs = (
            ["-"] * 3
            if run.cost is None
            else [_percent(run.cost.mean_keep), _short(run.cost.gflops), _short(run.cost.kv_bytes / 1e6)]
        )
        rows.append(
            [
                printable(run.label),
                "-" if run.layer is None else str(run.layer),
                "-" if run.keep is None else f"{run.keep:.4g}",
                *costs,
                f"{_percent(accuracy.value)} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})",
                "-" if line.retained is None else _percent(line.retained),
                "-" if one is None else f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})",
                "-" if one is None else p_value(one.p),
                str(run.n_no_box + run.n_error),
            ]
        )
    return [*headings, "p", "fails"], rows


def _table(lines: Sequence[ComparedRun], unreachable: Sequence[Unreachable]) -> Table:
    from rich.markup import escape

    table = plain_table()  # fits 80 columns
    table.add_column("method\nlayer", overflow="fold")
    headings = _HEADINGS if _has_speed(lines) else _HEADINGS[:-1]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line)[: 1 + len(headings)])
    for one in unreachable:
        table.add_row(two_lines(escape(printable(one.label)), "unreachable"), *["-"] * len(headings))
    return table


def _has_speed(lines: Sequence[ComparedRun]) -> bool:
    """Whether a line was timed; rows of an earlier run, and of a cluster, were not."""
    return any(line.speed is not None for line in lines)


def _cells(line: ComparedRun) -> list[str]:
    from rich.markup import escape

    run, accuracy, difference = line.run, line.accuracy, line.difference
    return [
        two_lines(escape(printable(run.label)), "-" if run.layer is None else str(run.layer)),
        two_lines(
            "-" if run.keep is None else f"{run.keep:.4g}", "-" if run.cost is None else _percent(run.cost.mean_keep)
        ),
        "-" if run.cost is None else two_lines(_short(run.cost.gflops), _short(run.cost.kv_bytes / 1e6)),
        two_lines(_percent(accuracy.value), f"{100 * accuracy.low:.0f}-{100 * accuracy.high:.0f}"),
        "-" if line.retained is None else _percent(line.retained),
        "-" if difference is None else _change(difference),
        "-" if difference is None else p_value(difference.p),
        str(run.n_no_box + run.n_error),
        "-" if line.speed is None else f"x{line.speed:.2f}",
    ]


def _change(difference: Difference) -> str:
    """Format a difference with its interval; if no row differs, with the bound of the difference."""
    if not difference.n_differ:
        return two_lines("same", f"<{100 * difference.high:.2g}")
    return two_lines(f"{100 * difference.value:+.1f}", f"{100 * difference.low:+.0f} {100 * difference.high:+.0f}")


def _short(number: float) -> str:
    """Format with three digits, or with all digits before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _percent(share: float) -> str:
    return f"{share:.1%}"
