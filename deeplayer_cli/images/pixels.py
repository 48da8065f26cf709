"""Conversion of the pixels of every mode to 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt


class UnsupportedPixelsError(ValueError):
    """An image's values have no agreed brightness."""


def to_rgb(image: Image.Image, *, bits: int = 16, white_is_zero: bool = False) -> Image.Image:
    """Convert a decoded image to RGB.

    8-bit modes become what Pillow's ``convert("RGB")`` makes of them, as in InternVL's own code. Grey with more bits,
    which Pillow would clip at 255, is scaled, and rounded to the nearest 8-bit value:

    * 16-bit grey (``I;16``, ``I;16B``, ...): from 0..65535 to 0..255; 12-bit grey: from 0..4095.
    * 32-bit integers (``I``): an image within 0..255 stays as it is; one within 0..65535 is scaled to 0..255.
    * floats (``F``): an image within 0..1 is scaled to 0..255; the others as 32-bit integers.

    Args:
        image: in any mode.
        bits: number of bits that a pixel of 16-bit grey uses.
        white_is_zero: whether the values of grey with more than 8 bits count from white to black.

    Raises:
        UnsupportedPixelsError: the values of an ``I`` or ``F`` image are in none of these ranges, or are not finite.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        straight = image.convert("LA") if image.mode == "La" else image  # Pillow has no way from La to RGB
        return straight.convert("RGB")
    grey = _grey(image, bits)
    return Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB")


def _grey(image: Image.Image, bits: int) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        table = np.arange(2**16) * (255 / (2**bits - 1)) + 0.5
        return cast("npt.NDArray[np.uint8]", table.clip(0, 255).astype(np.uint8)[values])
    factor = np.float32(255 / _white(image.mode, values.min(), values.max()))
    scaled = np.multiply(values, factor, dtype=np.float32)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8)


def _white(mode: str, lowest: np.number, highest: np.number) -> int:
    """Return the value of white in an ``I`` or ``F`` image with these extremes; with a NaN, both extremes are NaN."""
    for white in (1, 255, 65535) if mode == "F" else (255, 65535):
        if lowest >= 0 and highest <= white:
            return white
    ranges = "0..1, 0..255 or 0..65535" if mode == "F" else "0..255 or 0..65535"
    raise UnsupportedPixelsError(f"its values range from {lowest:g} to {highest:g}; scale them to {ranges}")
