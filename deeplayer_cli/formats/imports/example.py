"""What every format is read into: one expression about one image, with its box as xyxy in pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.boxes import Box, Resolution

BoxFormat = Literal["xyxy", "xywh", "cxcywh", "per-mille", "unit"]
"""How four numbers are a box: corners, corner and size, or centre and size in pixels; corners in thousandths of the
image, as InternVL writes them; corners in fractions of the image."""

BOX_FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)
RELATIVE_FORMATS: frozenset[BoxFormat] = frozenset({"per-mille", "unit"})
"""Conventions that need the image's width and height."""


@dataclass(frozen=True)
class ImportedExample:
    """One expression about one image.

    Attributes:
        image: its path, as the file writes it, or the bytes of an image inside the file.
        expression: what to find.
        numbers: four numbers of the gold box, in the format's own convention; None without a box.
        resolution_wh: width and height as the file states them, if it does.
        image_name: a file name for an image that comes as bytes.
        meta: what else belongs to it, such as ``dataset``, ``split``, ``ref_id``.
    """

    image: str | bytes
    expression: str
    numbers: tuple[float, ...] | None = None
    resolution_wh: Resolution | None = None
    image_name: str | None = None
    meta: dict[str, object] = field(default_factory=dict)


def to_xyxy(numbers: Sequence[float], box_format: BoxFormat, resolution_wh: Resolution | None) -> Box:
    """Four numbers of a convention as corners in pixels.

    Raises:
        DeeplayerError: there are not four, or the convention needs a resolution and there is none.
    """
    if len(numbers) != 4:
        raise DeeplayerError(f"a box needs four numbers, not {list(numbers)}")
    a, b, c, d = map(float, numbers)
    if box_format == "xyxy":
        return a, b, c, d
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if resolution_wh is None:
        raise DeeplayerError(f"boxes as {box_format} need the image's width and height")
    width, height = resolution_wh
    scale = 1000 if box_format == "per-mille" else 1
    return a / scale * width, b / scale * height, c / scale * width, d / scale * height
