"""Flat tables: one row a box, comma- or tab-separated."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.formats.labelled import Labelled

COLUMNS = ("id", "image", "label", "expression", "x1", "y1", "x2", "y2", "score", "width", "height")


def write_csv_table(labelled: Labelled, path: Path) -> None:
    """Write a header and one row a box, boxes as xyxy in pixels; a ``.tsv`` is separated by tabs."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(COLUMNS)
        for image in labelled.images:
            for box in image.boxes:
                corners = [round(number, 2) for number in box.xyxy]
                score = "" if box.score is None else box.score
                writer.writerow([box.id, image.image, box.label, box.expression, *corners, score, *image.resolution_wh])
