"""What a value of a row may be, and how a message shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.boxes import Box

Id = str | int


def four_numbers(name: str, value: object) -> Box:
    """A value as four finite floats; ``name`` is what the message calls it.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Sequence) or len(value) != 4 or not all(_is_finite(number) for number in value):
        raise ValueError(f"{name} must be four finite numbers [x1, y1, x2, y2], not {show(value)}")
    x1, y1, x2, y2 = value
    return float(x1), float(y1), float(x2), float(y2)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_id(value: object) -> bool:
    """Whether a value can name a row: a string or an integer, but not true or false."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def find_non_finite(value: object, name: str = "") -> str | None:
    """Where in a value of lists and mappings the first NaN or infinity sits, such as ``"box.0"``; None without one."""
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
    """A value for a message: as JSON would write it, not longer than a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
