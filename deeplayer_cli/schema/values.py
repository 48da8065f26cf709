"""Checks of the values in a row, and how messages show a value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.boxes import Box

Id = str | int


def four_numbers(name: str, value: object) -> Box:
    """Return a value as four finite floats; the error message calls it ``name``.

    Raises:
        ValueError: the value is not a sequence of four finite numbers.
    """
    if not isinstance(value, Sequence) or len(value) != 4 or not all(_is_finite(number) for number in value):
        raise ValueError(f"{name} must be four finite numbers [x1, y1, x2, y2], not {show(value)}")
    x1, y1, x2, y2 = value
    return float(x1), float(y1), float(x2), float(y2)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_id(value: object) -> bool:
    """Whether a value can be the id of a row: a string or an integer, but not true or false."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def find_non_finite(value: object, name: str = "") -> str | None:
    """Return where the first NaN or infinity is in nested lists and mappings, such as ``"box.0"``; None without one."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    if not isinstance(value, (Mapping, list, tuple)):
        return None
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(item, (float, Mapping, list, tuple)):
            place = find_non_finite(item, f"{name}.{key}" if name else str(key))
            if place is not None:
                return place
    return None


def show(value: object) -> str:
    """Format a value for a message: as JSON, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
