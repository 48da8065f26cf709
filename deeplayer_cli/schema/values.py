"""Checks of the values in a row, and how messages show a value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import PurePath

    from deeplayer_cli.boxes import Box

Id = str | int

_ESCAPED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")  # how `in_text` writes one
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # how Python shows a byte that is not UTF-8, in names and in arguments

_GZIP = b"\x1f\x8b"  # how such a file begins
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


def json_fault(line: bytes, error: Exception) -> str:
    """What is wrong with a line that is not JSON: its encoding, a number that JSON lacks, or what the parser says."""
    try:
        line.decode()
    except UnicodeDecodeError:
        if line.startswith(_GZIP):
            return "it is compressed by gzip: unpack the file first"
        return "it is not UTF-8: save the file as UTF-8"
    with suppress(ValueError, RecursionError):  # Python's parser reads such numbers, and nothing else that is wrong
        if (place := find_non_finite(json.loads(line))) is not None:
            return f"{place} is infinite or not a number, and JSON has no such numbers: write null"
    return f"{error}; a row is one line" if "end of data" in str(error) else str(error)


def four_numbers(name: str, value: object) -> Box:
    """Return a value as four finite floats; the error message calls it ``name``.

    Raises:
        ValueError: the value is not a sequence of four finite numbers.
    """
    if not isinstance(value, Sequence) or len(value) != 4 or not all(_is_finite(number) for number in value):
        comma = isinstance(value, list) and any(
            isinstance(item, str) and _DECIMAL_COMMA.fullmatch(item) for item in value
        )
        way_out = ": write numbers with a point, not with a comma" if comma else ""
        raise ValueError(f"{name} must be four finite numbers [x1, y1, x2, y2], not {show(value)}{way_out}")
    x1, y1, x2, y2 = value
    return float(x1), float(y1), float(x2), float(y2)


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return is_64_bit(value) if isinstance(value, int) else math.isfinite(value)


def is_id(value: object) -> TypeGuard[Id]:
    """Whether a value can be the id of a row: a string or a 64-bit integer, but not true or false."""
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and is_64_bit(value))


def is_64_bit(value: int) -> bool:
    """Whether a row can hold an integer: a signed or unsigned one of 64 bits."""
    return -(2**63) <= value < 2**64


def find_wide(value: object) -> str | None:
    """Return where the first integer of more than 64 bits is, such as ``"hashes.0"``; None without one."""
    return _find(value, int, lambda number: not is_64_bit(number))


def find_non_finite(value: object) -> str | None:
    """Return where the first NaN or infinity is, such as ``"box.0"``; None without one."""
    return _find(value, float, lambda number: not math.isfinite(number))


def _find(value: object, kind: type, is_wrong: Callable[..., bool], name: str = "") -> str | None:
    """Return the place of the first wrong value of a kind in nested lists and mappings; None without one."""
    if isinstance(value, kind):
        return name if is_wrong(value) else None
    if not isinstance(value, (Mapping, list, tuple)):
        return None
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(item, (kind, Mapping, list, tuple)):
            place = _find(item, kind, is_wrong, f"{name}.{key}" if name else str(key))
            if place is not None:
                return place
    return None


def in_text(path: PurePath | str) -> str:
    r"""Return a path or an argument as text that JSON can contain: bytes that are not UTF-8 become ``\x..``."""
    escaped = _RAW_BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", str(path))
    return escaped.encode("utf-8", "backslashreplace").decode()


def from_text(text: str) -> str:
    """Return the path that `in_text` wrote, as Python shows it."""
    return _ESCAPED_BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 row``, ``1,200 rows``; without ``plural``, it is the noun with an ``s``."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def show(value: object, most: int | None = 80) -> str:
    """Format a value for a message: as JSON, cut to ``most`` characters if that is a number."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if most is None or len(text) <= most else f"{text[: most - 3]}..."
