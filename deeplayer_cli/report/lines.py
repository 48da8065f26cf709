"""Writes tables as comma-separated values."""

from __future__ import annotations

import csv
from dataclasses import fields
from typing import TYPE_CHECKING

from deeplayer_cli.evaluation.compare import Difference
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.compare import ComparedRun


def write_csv(lines: Sequence[ComparedRun], path: Path) -> None:
    """Write one CSV row for each line of a comparison.

    The columns are those of the line's JSON. An interval or a difference has one column for each of its numbers.

    Raises:
        DeeplayerError: the file cannot be written.
    """
    write_rows(list(map(flat, lines)), path)


def write_rows(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write rows of equal fields as a CSV file with a heading; at least one.

    Raises:
        DeeplayerError: the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def flat(line: ComparedRun) -> dict[str, object]:
    """A line as one row: each number has a field of its own."""
    row = line.to_dict()
    del row["difference"], row["acc@0.5_ci95"]
    row |= {"acc@0.5_low": line.accuracy.low, "acc@0.5_high": line.accuracy.high}
    return row | {
        f"difference_{part.name}": None if line.difference is None else getattr(line.difference, part.name)
        for part in fields(Difference)
    }
