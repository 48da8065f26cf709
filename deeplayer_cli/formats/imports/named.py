"""Rows with named fields: JSON lines, JSON arrays and tables."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard

import orjson

from deeplayer_cli.errors import DeeplayerError, RowError, reading
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample
from deeplayer_cli.formats.imports.json_stream import array_items
from deeplayer_cli.formats.imports.splits import names_in
from deeplayer_cli.schema import refuse_prediction
from deeplayer_cli.schema.gold import CORNER_NAMES
from deeplayer_cli.schema.values import json_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.boxes import BoxFormat
    from deeplayer_cli.formats.imports.example import Example

IMAGE_NAMES = ("image", "image_path", "file_name", "filename")
EXPRESSION_NAMES = ("expression", "sent", "caption", "phrase", "label")
BOX_NAMES = ("box", "bbox")

MAX_FIELD_BYTES = 2**27
"""The longest field of a table, in bytes: an image as base64 must fit in."""


def read_json_lines(path: Path) -> Iterator[Example]:
    """One example a line."""
    with reading(str(path)), path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                continue
            try:
                row = orjson.loads(content)
            except ValueError as error:
                yield BadExample(RowError("bad_json", f"the row is not JSON: {json_fault(line, error)}"), number)
            else:
                yield _example(row, path, number)


def first_objects(path: Path, count: int) -> list[dict[str, Any]]:
    """The objects in the first lines that are not blank; lines that are longer than 1 MiB or no object are left out.

    Args:
        path: of a file of JSON lines, or of something else.
        count: number of lines.
    """
    found = []
    with reading(str(path)), path.open("rb") as stream:
        lines = (line.removeprefix(b"\xef\xbb\xbf").strip() for line in iter(lambda: stream.readline(2**20), b""))
        for line in islice(filter(None, lines), count):
            with suppress(ValueError):
                found.append(orjson.loads(line))
    return [row for row in found if isinstance(row, dict)]


def read_json_array(path: Path) -> Iterator[Example]:
    """One example an item of the array."""
    for row in array_items(path):
        yield _example(row, path, None)


def read_table(path: Path) -> Iterator[Example]:
    """One example a row of a table with a header."""
    delimiter = delimiter_of(path)
    for line, row in table_rows(path):
        more = row.pop(None, ())  # type: ignore[call-overload]  # csv keeps what no column is for under None
        if any(more):
            message = f"the row has {len(row) + len(more)} fields, and the header {len(row)}"
            yield BadExample(
                RowError("bad_row", f"{message}: put quotes around a field with {delimiter!r} in it"), line
            )
            continue
        if (lacking := _lacking(row)) is not None:
            message = f"the row has a part of a box, and no {lacking}: fill it in, or leave the whole box empty"
            yield BadExample(RowError("bad_box", message), line)
            continue
        yield _example({name: value for name, value in row.items() if value not in (None, "")}, path, line)


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table, each with the line that it ends on, or begins on if it cannot be read.

    Raises:
        DeeplayerError: the file cannot be read, or two of its columns have one name: a row can hold only one of them.
    """
    csv.field_size_limit(MAX_FIELD_BYTES)
    if twice := [name for name, count in Counter(header_of(path)).items() if name and count > 1]:
        raise DeeplayerError(f"{path}:1: column {twice[0]!r} comes twice: give each column a name of its own")
    with reading(str(path)), path.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as stream:
        table = csv.DictReader(stream, delimiter=delimiter_of(path), strict=True)  # a lone quote swallows no rows
        while True:
            begin = table.reader.line_num + 1
            try:
                row = next(table, None)
            except csv.Error as error:
                yield begin, {"": f"{error}"}
                continue
            if row is None:
                return
            yield table.line_num, row


def header_of(path: Path) -> list[str]:
    """The column names of a table; one name or none if it is something else."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(2**16)
    return next(csv.reader([line], delimiter=_delimiter_in(line)), [])


def delimiter_of(path: Path) -> str:
    """A tab if the header has one, else a semicolon if it has more of them than commas, else a comma."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return _delimiter_in(stream.readline(2**16))


def _delimiter_in(header: str) -> str:
    if "\t" in header:
        return "\t"
    return ";" if header.count(";") > header.count(",") else ","


def _example(row: object, path: Path, line: int | None) -> Example:
    if not isinstance(row, dict):
        return BadExample(
            RowError("bad_row", f"the row must be an object, not {json.dumps(row, default=str)[:80]}"), line
        )
    if "" in row and len(row) == 1:
        return BadExample(RowError("bad_row", f"the row cannot be read: {row['']}"), line)
    try:
        refuse_prediction(row)
    except RowError as error:
        return BadExample(error, line)
    boxes = [row[name] for name in BOX_NAMES if row.get(name) not in (None, "")]
    box = boxes[0] if boxes else None
    corners = next((names for names in CORNER_NAMES if box is None and row.keys() >= set(names)), ())
    box_format: BoxFormat | None = None
    if corners:
        box, box_format = [row[name] for name in corners], CORNER_NAMES[corners]
    image, expression = _first_name(row, IMAGE_NAMES), _first_name(row, EXPRESSION_NAMES)
    used = {image, expression, *BOX_NAMES, *corners, "width", "height", "id", "meta"}
    meta = {name: value for name, value in row.items() if isinstance(name, str) and name not in used}
    more = row.get("meta")
    width, height = _number(row.get("width")), _number(row.get("height"))
    return ImportedExample(
        row.get(image or ""),
        row.get(expression or ""),
        _numbers(box),
        (int(width), int(height)) if _is_finite(width) and _is_finite(height) else None,
        meta=names_in(path.name) | meta | (more if isinstance(more, dict) else {}),
        id=row.get("id"),
        line=line,
        box_format=box_format,
        second_box=_numbers(boxes[1]) if len(boxes) > 1 else None,
    )


def _lacking(row: Mapping[str, object]) -> str | None:
    """The first column of a box that is empty while its others are not; None if the row has a whole box, or none."""
    if _first_name(row, BOX_NAMES) is not None:
        return None
    for names in CORNER_NAMES:
        if not all(name in row for name in names):
            continue
        empty = [name for name in names if row[name] in (None, "")]
        if len(empty) < len(names):
            return empty[0] if empty else None
    return None


def _first_name(row: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if row.get(name) not in (None, "")), None)


def _numbers(box: object) -> object:
    """The numbers of a box that a table writes as text; anything else as it is."""
    if isinstance(box, str):
        box = box.strip(" []()").replace(",", " ").split()
    return [_number(number) for number in box] if isinstance(box, list) else box


def _number(value: object) -> object:
    """The finite number that a text is; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)
