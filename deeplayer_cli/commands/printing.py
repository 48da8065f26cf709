"""Printing comparisons: as a table, as text to paste, or as JSON."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson
import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.compare import ComparedRun
    from deeplayer_cli.evaluation.matching import Unreachable
    from deeplayer_cli.evaluation.published_tables import PublishedTable
    from deeplayer_cli.evaluation.splits import SplitTable
    from deeplayer_cli.report.text_tables import TableFormat

logger = logging.getLogger("deeplayer")


class TextFormat(StrEnum):
    """How a table is printed: for a terminal, or as text to paste."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"


def show_lines(
    lines: Sequence[ComparedRun],
    unreachable: Sequence[Unreachable],
    reference: str,
    format_: TextFormat,
    csv: Path | None,
    *,
    json: bool,
) -> None:
    """Print a comparison, and write it to ``csv``."""
    from deeplayer_cli.report import comparison_table
    from deeplayer_cli.report.lines import flat, write_csv

    if csv:
        write_csv(lines, csv)
    if json:
        rows = [line.to_dict() for line in lines] + [one.to_dict() for one in unreachable]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    elif format_ is TextFormat.TABLE:
        comparison_table.show(lines, unreachable, reference)
    else:
        for one in unreachable:
            logger.warning("%s cannot reach the cost of the first method, and is left out: name it first", one.label)
        _print_text(format_, comparison_table.headings_and_rows(lines), list(map(flat, lines)))


def show_splits(
    table: SplitTable, published: PublishedTable | None, format_: TextFormat, csv: Path | None, *, json: bool
) -> None:
    """Print a comparison by split, and write it to ``csv``."""
    from deeplayer_cli.report import split_table
    from deeplayer_cli.report.lines import write_rows

    if csv:
        write_rows(split_table.csv_rows(table), csv)
    if json:
        told = table.to_dict()
        if published is not None:
            told |= {"title": published.title, "note": published.note, "source": published.source}
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    elif format_ is TextFormat.TABLE:
        split_table.show(table, published)
    else:
        _print_text(format_, split_table.headings_and_rows(table), split_table.csv_rows(table))


def _print_text(
    format_: TextFormat, shown: tuple[list[str], list[list[str]]], exact: Sequence[Mapping[str, object]]
) -> None:
    """Print a table as text: rounded for people, or with all digits as comma-separated values."""
    from deeplayer_cli.report.text_tables import text_table

    headings, rows = shown
    kind: TableFormat = format_.value  # type: ignore[assignment]
    if format_ is TextFormat.CSV:
        headings = list(exact[0])
        rows = [["" if value is None else str(value) for value in row.values()] for row in exact]
    typer.echo(text_table(headings, rows, kind))
