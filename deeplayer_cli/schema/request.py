"""Requests: the rows of an input file.

A row is ``{"id"?, "image", "expression", "box"?, "width"?, "height"?, ...}``. InternVL's own rows, with ``sent`` and
``bbox``, are read as they are, and so are corners in four fields, as tables have them. Other fields go under ``meta``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import orjson

from deeplayer_cli.errors import RowError
from deeplayer_cli.schema.gold import (
    CORNER_NAMES,
    GoldReader,
    WrittenGold,
    read_numbers,
    refuse_other_box,
    refuse_other_corners,
)
from deeplayer_cli.schema.values import Id, find_non_finite, find_wide, is_id, json_fault, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from deeplayer_cli.boxes import Box, Resolution

MAX_ROW_BYTES = 2**20
"""The longest row, in bytes; a longer line becomes an error row."""

OWN_FIELDS = frozenset({"id", "image", "expression", "sent", "box", "bbox", "width", "height", "meta"})
"""The fields of a row that have a meaning here; all others go under ``meta``."""

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://|data:")
_PREDICTION_FIELDS = frozenset({"status", "answer", "gold"})
_NON_FINITE = re.compile("NaN|Infinity")  # only such a row can hold a number that JSON does not have
_LONG_NUMBER = re.compile(rb"\d{19}")  # only such a row can hold an integer that orjson would round

_CORNERS = [names for names, box_format in CORNER_NAMES.items() if box_format == "xyxy"]
_IN_PIXELS = GoldReader()
_TOLD_FIRST = ("id", "box", "image", "expression", "size", "meta", "path")
"""The fields in the order in which a row's error names the first that is wrong."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request: find the object that the expression describes in the image.

    Attributes:
        id: the row's own id, or the default made from its place.
        image: the image as the row writes it.
        path: the path of the image file.
        expression: what to find, as the row writes it.
        gold: the gold box in pixels, if the row has one.
        meta: the row's other fields, untouched.
        where: the row's place, such as ``"photos/requests.jsonl:12"``; it becomes the prediction's ``source``.
        resolution_wh: the image's width and height as the row states them, if it does.
        hint: what to say besides, if the image is missing.
        written: the gold box as the row writes it.
    """

    id: Id
    image: str
    path: Path
    expression: str
    gold: Box | None
    meta: dict[str, object]
    where: str
    resolution_wh: Resolution | None
    hint: str = ""
    written: WrittenGold | None = None


@dataclass(frozen=True, slots=True)
class BadRequest:
    """An invalid row, which becomes an ``error`` prediction in its place.

    It has all fields that could be read, and the error. The other attributes are as in `Request`.
    """

    id: Id
    image: str | None
    expression: str | None
    gold: Box | None
    meta: dict[str, object]
    where: str
    error: RowError
    written: WrittenGold | None = None

    @classmethod
    def from_row(cls, row: Request | BadRequest, error: RowError) -> BadRequest:
        """The same row with an error."""
        return cls(row.id, row.image, row.expression, row.gold, row.meta, row.where, error, row.written)


def parse_request(
    raw: bytes | Mapping[str, object],
    where: str,
    default_id: Id,
    image_root: Path,
    *,
    confined: bool = False,
    hint: str = "",
    gold_reader: GoldReader = _IN_PIXELS,
) -> Request | BadRequest:
    """Read one row; an invalid row becomes a `BadRequest`, so this never raises.

    Args:
        raw: a line of JSON, or a mapping, whose paths, numpy scalars and arrays are read as text, numbers and lists.
        where: the row's place, for messages.
        default_id: the id of a row without one.
        image_root: the folder that a relative image path starts from.
        confined: refuse images outside of ``image_root``, with links followed.
        hint: what to say besides, if the image is missing and its path is relative.
        gold_reader: reads the gold box.
    """
    problems: dict[str, RowError] = {}

    def attempt(field: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except RowError as error:
            problems[field] = RowError(error.kind, f"{where}: {error.message}")
            return None

    row = attempt("row", lambda: _read_object(raw))
    if row is None:
        known = raw.get("id") if isinstance(raw, Mapping) else None
        return BadRequest(known if is_id(known) else default_id, None, None, None, {}, where, problems["row"])
    row = _with_box(row)
    row_id = attempt("id", lambda: _read_id(row.get("id")))
    image = attempt("image", lambda: _read_image(row.get("image")))
    expression = attempt("expression", lambda: _read_expression(_first(row, "expression", "sent")))
    resolution_wh = attempt("size", lambda: _read_resolution(row))
    meta, wide = _without_wide(_read_meta(row))
    if wide is not None:
        message = f"{where}: {wide} is an integer of more than 64 bits, which JSON readers round: write it as a string"
        problems["meta"] = RowError("bad_number", message)
    path = attempt("path", lambda: _locate(image, image_root, confined=confined)) if image is not None else None
    box = _first(row, "box", "bbox")
    numbers = attempt("box", lambda: read_numbers(box)) if box is not None else None
    written = WrittenGold(numbers, resolution_wh, path) if numbers is not None else None
    gold = attempt("box", lambda: gold_reader.read(written)) if written is not None else None
    if gold is not None and written is not None:
        attempt("box", lambda: refuse_other_corners(gold, meta))
        attempt("box", lambda: refuse_other_box(gold, written, row.get("bbox"), gold_reader))
    if row_id is None:
        row_id = default_id
    if problems or image is None or path is None or expression is None:
        error = next(problems[field] for field in _TOLD_FIRST if field in problems)
        return BadRequest(row_id, image, expression, gold, meta, where, error, written)
    hint = "" if Path(image).is_absolute() else hint
    return Request(row_id, image, path, expression, gold, meta, where, resolution_wh, hint, written)


def check_resolution(stated_wh: Resolution | None, stored_wh: Resolution) -> None:
    """Refuse a row whose stated size is not the stored image's: its boxes are in another frame.

    Args:
        stated_wh: width and height in pixels as the row states them; None if it does not.
        stored_wh: width and height of the stored image, in pixels.

    Raises:
        RowError: ``size_mismatch``: the two sizes differ.
    """
    if stated_wh is not None and stated_wh != stored_wh:
        stated, stored = ("{} x {}".format(*size) for size in (stated_wh, stored_wh))
        raise RowError(
            "size_mismatch",
            f"the row states {stated} pixels, the stored image has {stored}; boxes are in pixels of the stored image",
        )


def _with_box(row: dict[str, object]) -> dict[str, object]:
    """Return a row without a box, but with the four fields of one, with these as its box."""
    if _first(row, "box", "bbox") is None:
        for names in _CORNERS:
            corners = [row.get(name) for name in names]
            if row.keys() >= set(names) and any(corner not in (None, "") for corner in corners):
                return {name: value for name, value in row.items() if name not in names} | {"box": corners}
    return row


def _read_object(raw: bytes | Mapping[str, object]) -> dict[str, object]:
    """Return the row as plain JSON values that can be written again: finite, in UTF-8, with limited nesting."""
    if not isinstance(raw, bytes):
        raw = _as_json(raw)
    if len(raw) > MAX_ROW_BYTES:
        raise RowError("row_too_long", f"the row is longer than {MAX_ROW_BYTES:,} bytes")
    try:
        row = orjson.loads(raw)
        orjson.dumps({"meta": row})  # as it will be written; refuses deeper nesting than loads
        if _LONG_NUMBER.search(raw):
            row = json.loads(raw)
    except (ValueError, orjson.JSONEncodeError) as error:
        raise RowError("bad_json", f"the row is not JSON: {json_fault(raw, error)}") from error
    if not isinstance(row, dict):
        raise RowError("bad_row", f"the row must be a JSON object, not {show(row)}")
    refuse_prediction(row)
    return row


def refuse_prediction(row: Mapping[str, object]) -> None:
    """Refuse a row that a run wrote.

    Raises:
        RowError: ``bad_row``.
    """
    if row.keys() >= _PREDICTION_FIELDS:
        raise RowError(
            "bad_row", "the row is a prediction: `score` and `data export` read it; here, use the original request"
        )


def _as_json(row: Mapping[str, object]) -> bytes:
    image = row.get("image")
    if hasattr(image, "__array_interface__") and not isinstance(image, str):
        raise RowError("bad_image", f"image must be the path of a file, not pixels ({type(image).__name__}): save it")
    try:
        text = json.dumps(dict(row), default=_plain)
        place = find_non_finite(json.loads(text)) if _NON_FINITE.search(text) else None
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError("bad_json", f"the row is not JSON: {error}") from error
    if place is not None:
        raise RowError("bad_json", f"{place} is infinite or not a number, and JSON has no such numbers")
    return text.encode()


def _plain(value: object) -> object:
    """Return a value that is not JSON as one that is: a path as text, numpy's scalars and arrays as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{show(value)} is {type(value).__name__}")


def _read_id(value: object) -> Id | None:
    if value is not None and not is_id(value):
        raise RowError("bad_id", f"id must be a string or a 64-bit integer, not {show(value)}")
    return value


def _read_image(value: object) -> str:
    if value is None:
        raise RowError("bad_image", 'the row has no "image"')
    if not isinstance(value, str) or not value or "\0" in value:
        raise RowError("bad_image", f"image must be the path of a file, not {show(value)}")
    if _URL.match(value):
        raise RowError("image_url", f"image must be the path of a file; download {show(value)} first")
    return value


def _locate(image: str, root: Path, *, confined: bool) -> Path:
    path = root / image
    if confined:
        check_inside(path, root)
    return path


def check_inside(path: Path, root: Path) -> None:
    """Refuse a file that lies outside of a folder, with links followed.

    Raises:
        RowError: ``image_outside``: the file lies outside of ``root``.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise RowError("image_outside", f"{show(str(path))} lies outside of {root}; --allow-outside permits that")


def _read_expression(value: object) -> str:
    if value is None:
        raise RowError("bad_expression", 'the row has no "expression" (or "sent")')
    if not isinstance(value, str) or not value.strip():
        raise RowError("bad_expression", f"expression must be text that describes something, not {show(value)}")
    return value


def _read_resolution(row: Mapping[str, object]) -> Resolution | None:
    width, height = row.get("width"), row.get("height")
    if width is None and height is None:
        return None
    for name, value in (("width", width), ("height", height)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RowError("bad_size", f"{name} must be a number of pixels, not {show(value)}")
    return cast("Resolution", (width, height))


def _read_meta(row: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that are not ours; the fields of an object called ``meta`` are added and take precedence."""
    others = {name: value for name, value in row.items() if name not in OWN_FIELDS}
    meta = row.get("meta")
    if isinstance(meta, dict):
        return others | meta
    return others if meta is None else others | {"meta": meta}


def _without_wide(meta: dict[str, object]) -> tuple[dict[str, object], str | None]:
    """Return the fields without integers of more than 64 bits, and the place of the first such integer, if any."""
    wide = find_wide(meta)
    if wide is None:
        return meta, None
    return {name: value for name, value in meta.items() if find_wide(value) is None}, wide


def _first(row: Mapping[str, object], *names: str) -> object:
    """Return the first of these fields that is not null: our name, then InternVL's name."""
    return next((row[name] for name in names if row.get(name) is not None), None)
