"""Boxes: conversions and overlap.

A box is ``(x1, y1, x2, y2)`` in float pixels of the image as stored in its file. Only prompts and answers use other
numbers: integers from 0 to 1000, per mille of the image's width and height. This is InternVL's own convention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Box = tuple[float, float, float, float]
Resolution = tuple[int, int]

BoxFormat = Literal["xyxy", "xywh", "cxcywh", "per-mille", "unit"]
"""How four numbers are a box: corners, corner and size, or centre and size in pixels; corners in thousandths of the
image, as InternVL writes them; corners in fractions of the image."""

BOX_FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)

RELATIVE_FORMATS: frozenset[BoxFormat] = frozenset({"per-mille", "unit"})
"""The formats that need the image's width and height."""

CORRECT_IOU = 0.5
"""The smallest IoU that the official evaluation counts as right."""


def to_permille(box: Box, resolution_wh: Resolution) -> tuple[int, int, int, int]:
    """Clip a box to the image, and convert it from pixels to integers from 0 to 1000, per mille of the image's size."""
    width, height = resolution_wh
    x1, y1, x2, y2 = clip_box(box, resolution_wh)
    return round(x1 / width * 1000), round(y1 / height * 1000), round(x2 / width * 1000), round(y2 / height * 1000)


def to_xyxy(numbers: Box, box_format: BoxFormat, resolution_wh: Resolution | None = None) -> Box:
    """Convert four numbers of a format to corners in pixels.

    Raises:
        ValueError: the format needs the image's width and height, and ``resolution_wh`` is None.
    """
    a, b, c, d = numbers
    if box_format == "xyxy":
        return numbers
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if resolution_wh is None:
        raise ValueError(f"boxes as {box_format} need the image's width and height")
    (width, height), whole = resolution_wh, 1000 if box_format == "per-mille" else 1
    return a * width / whole, b * height / whole, c * width / whole, d * height / whole


def from_permille(box: Sequence[float], resolution_wh: Resolution) -> Box:
    """Convert a box from per mille of the image's size to pixels, in single precision, without clipping."""
    return to_pixels(np.asarray(box, dtype=np.float32) / np.float32(1000), resolution_wh)


def clip_box(box: Box, resolution_wh: Resolution) -> Box:
    """Clip a box to the image."""
    width, height = resolution_wh
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def turn_box(box: Box, orientation: int, resolution_wh: Resolution) -> tuple[Box, Resolution]:
    """Turn a box with its image.

    Args:
        box: in pixels of the stored image; corners in order.
        orientation: an EXIF orientation, 1 to 8; its inverse turns back.
        resolution_wh: of the image before.

    Returns:
        The box, corners in order, and the width and height of the turned image.
    """
    width, height = resolution_wh
    x1, y1, x2, y2 = box
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    return ((y1, x1, y2, x2), (height, width)) if orientation > 4 else ((x1, y1, x2, y2), (width, height))


def inverse_orientation(orientation: int) -> int:
    """Return the EXIF orientation that undoes another."""
    return {6: 8, 8: 6}.get(orientation, orientation)


def box_iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, from 0.0 to 1.0; 0.0 if the union has no area.

    This follows the official evaluation statement by statement, in single precision, so that both judge a box at the
    threshold alike. Flipped boxes (``x2 < x1``) overlap nothing. For some degenerate pairs, the official code returns
    NaN or -0.0 and counts them as wrong; this function returns 0.0.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        first, second = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
        overlap_wh = np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), np.float32(0))
        intersection = overlap_wh[0] * overlap_wh[1]
        first_wh, second_wh = first[2:] - first[:2], second[2:] - second[:2]
        iou = intersection / (first_wh[0] * first_wh[1] + second_wh[0] * second_wh[1] - intersection)
    return float(iou) if iou > 0 else 0.0


def centre_inside(box: Box, gold: Box) -> bool:
    """Whether the centre of ``box`` lies in ``gold``, edges included."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return gold[0] <= x <= gold[2] and gold[1] <= y <= gold[3]


def to_pixels(fractions: np.ndarray[tuple[int], np.dtype[np.float32]], resolution_wh: Resolution) -> Box:
    """Convert a box, (4,) float32 fractions of the image's width and height, to pixels in single precision."""
    width, height = resolution_wh
    x1, y1, x2, y2 = (fractions * np.asarray([width, height, width, height], dtype=np.float32)).tolist()
    return x1, y1, x2, y2
