"""The objects of a scene: their attributes, and how to draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import random

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 225),
    "yellow": (240, 220, 50),
    "purple": (150, 50, 190),
    "orange": (245, 140, 30),
    "cyan": (60, 215, 225),
    "white": (245, 245, 245),
}
SIZES = ("small", "large")
SYNONYMS = {
    "purple": ("violet",),
    "cyan": ("turquoise",),
    "circle": ("disc",),
    "square": ("box",),
    "diamond": ("rhombus",),
    "cross": ("plus",),
    "small": ("little", "tiny"),
    "large": ("big",),
}

_JITTER = 12  # largest random change of a colour channel

# Outlines in the unit square; the circle is drawn as an ellipse.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
    "star": [
        (0.5 + radius * math.sin(k * math.pi / 5), 0.5 - radius * math.cos(k * math.pi / 5))
        for k in range(10)
        for radius in [0.5 if k % 2 == 0 else 0.2]
    ],
    "cross": [
        *[(1 / 3, 0), (2 / 3, 0), (2 / 3, 1 / 3), (1, 1 / 3), (1, 2 / 3), (2 / 3, 2 / 3)],
        *[(2 / 3, 1), (1 / 3, 1), (1 / 3, 2 / 3), (0, 2 / 3), (0, 1 / 3), (1 / 3, 1 / 3)],
    ],
}
SHAPES = ("circle", *_OUTLINES)


@dataclass(frozen=True)
class Thing:
    """One drawn object.

    Attributes:
        shape: one of ``SHAPES``.
        colour: a key of ``COLOURS``.
        size: one of ``SIZES``.
        box: its tight box, xyxy in pixels.
    """

    shape: str
    colour: str
    size: str
    box: tuple[float, float, float, float]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box, (x, y) in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def name(self) -> str:
        """Size, colour and shape in words, separated by spaces."""
        return f"{self.size} {self.colour} {self.shape}"


def draw(
    image: Image.Image, rng: random.Random, shape: str, colour: str, place: tuple[int, int, int, int]
) -> tuple[float, float, float, float]:
    """Draw a shape into ``image`` and return the tight xyxy box of the pixels it covers.

    Args:
        image: RGB image; changed in place.
        rng: varies the colour.
        shape: one of ``SHAPES``.
        colour: a key of ``COLOURS``.
        place: left, top, width and height in pixels.

    Raises:
        ValueError: the shape covers no pixel.
    """
    left, top, width, height = place
    mask = Image.new("1", (width, height))
    pen = ImageDraw.Draw(mask)
    if shape == "circle":
        pen.ellipse((0, 0, width - 1, height - 1), fill=1)
    else:
        pen.polygon([(x * (width - 1), y * (height - 1)) for x, y in _OUTLINES[shape]], fill=1)
    ink = tuple(min(255, max(0, channel + rng.randint(-_JITTER, _JITTER))) for channel in COLOURS[colour])
    image.paste(ink, (left, top), mask)
    covered = mask.getbbox()
    if covered is None:
        raise ValueError(f"a {shape} of {width} x {height} pixels covers no pixel")
    return float(left + covered[0]), float(top + covered[1]), float(left + covered[2]), float(top + covered[3])
