"""VLMEvalKit's RefCOCO.tsv: images as base64, boxes as fractions of the image."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from deeplayer_cli.errors import RowError
from deeplayer_cli.formats.imports.example import BadExample, EarlierImage, ImportedExample
from deeplayer_cli.formats.imports.named import header_of, table_rows
from deeplayer_cli.formats.imports.splits import names_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import Example

_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")
_LONGEST_INDEX = 64  # characters; an image as base64 is longer


def is_vlmevalkit(path: Path) -> bool:
    """Whether a table has VLMEvalKit's columns."""
    return {"index", "image", "question", "answer"} <= set(header_of(path))


def read_vlmevalkit(path: Path) -> Iterator[Example]:
    """One example a row; in place of an image there may be the index of an earlier row with the same one."""
    for line, row in table_rows(path):
        try:
            yield _example(row, path, line)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            yield BadExample(RowError("bad_row", f"the row cannot be read: {error}"), line)


def _example(row: dict[str, Any], path: Path, line: int) -> ImportedExample:
    image = row["image"]
    numbers = [float(number) for number in _NUMBER.findall(row["answer"])]
    category = row.get("category") or row.get("split") or path.stem
    named = names_in(category)
    return ImportedExample(
        EarlierImage(image) if len(image) <= _LONGEST_INDEX else base64.b64decode(image, validate=True),
        row["question"],
        numbers,
        image_name=f"{named.get('dataset', 'image')}.jpg",
        image_key=row["index"],
        meta=named | {"category": category, "index": row["index"]},
        line=line,
    )
