"""Tables as text for papers and pages: Markdown, LaTeX and comma-separated values."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

TableFormat = Literal["markdown", "latex", "csv"]

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], kind: TableFormat) -> str:
    """Format a table; the first column is text, the others are numbers.

    Args:
        headings: of the columns.
        rows: as many cells as headings in each.
        kind: ``markdown``: for code hosts. ``latex``: a ``tabular`` for the package booktabs. ``csv``: with a heading.
    """
    match kind:
        case "markdown":
            return _markdown(headings, rows)
        case "latex":
            return _latex(headings, rows)
        case "csv":
            stream = io.StringIO()
            csv.writer(stream, lineterminator="\n").writerows([headings, *rows])
            return stream.getvalue().rstrip("\n")


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = "|".join(["---", *["--:"] * (len(headings) - 1)])
    return "\n".join([line(headings), f"|{rule}|", *map(line, rows)])


def _latex(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        escaped = ["".join(_LATEX.get(character, character) for character in cell) for cell in cells]
        return " & ".join(escaped) + r" \\"

    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"\toprule",
            line(headings),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
