"""The text below a drawn row, with the legend of its boxes and colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from deeplayer_cli.formats.labelled import ordered_box
from deeplayer_cli.report.box_drawing import draw_dashed, draw_solid
from deeplayer_cli.report.colours import ORANGE, SKY_BLUE, VERMILLION, heat_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.report.lettering import AnyFont, Lettering
    from deeplayer_cli.report.tokens import Heat
    from deeplayer_cli.schema import Prediction

PREDICTED, FURTHER, GOLD = VERMILLION, ORANGE, SKY_BLUE
"""Colours of the first box of an answer, of its other boxes, and of gold boxes, which are also dashed."""

_LEAST_WIDTH = 480  # of a picture, in pixels
_INSET = 0.25  # of the picture's width
_TEXT, _FAINT = "black", "#595959"


@dataclass(frozen=True)
class CaptionLine:
    """A line of text.

    Attributes:
        text: it may be broken into several lines.
        mark: what it explains: a box, ``"predicted"`` or ``"gold"``, or ``"heat"``, the scale of colours; or nothing.
        size: of the letters, as a multiple of the usual size.
        faint: whether it is grey.
        most: the most lines.
    """

    text: str
    mark: str | None = None
    size: float = 1.0
    faint: bool = False
    most: int = 2


def caption_of(row: Prediction, heat: Heat | None, *, dimmed: bool) -> list[CaptionLine]:
    """Return the text of a row.

    Args:
        row: the row.
        heat: the values in the picture, if it has any.
        dimmed: whether dropped tokens are dimmed in the picture.
    """
    lines = [CaptionLine(row.expression or "(no expression)", size=1.3, most=4)]
    if row.error is not None:
        lines.append(CaptionLine(f"error {row.error.get('type')}: {row.error.get('message')}", most=3))
    elif not row.boxes:
        lines.append(CaptionLine(f"no box in the answer: {row.answer}", most=3))
    else:
        score = "" if row.score is None else f", score {row.score:.3f}"
        several = "" if len(row.boxes) == 1 else f"; the first of {len(row.boxes)} boxes counts"
        outside = "; it lies outside of the image" if _is_outside(row) else ""
        lines.append(CaptionLine(f"answer{score}{several}{outside}", "predicted"))
    if row.gold is not None:
        lines.append(CaptionLine("gold" if row.iou is None else f"gold, IoU {row.iou:.2f}", "gold"))
    if heat is not None:
        lines.append(CaptionLine(heat.title, "heat"))
    elif row.kept_tokens is not None and row.visual_tokens is not None and row.layer is not None:
        kept = f"{row.kept_tokens} of {row.visual_tokens} visual tokens kept"
        lines.append(
            CaptionLine(f"{row.method}, layer {row.layer}: {kept}{' (the others are dark)' if dimmed else ''}")
        )
    return [*lines, CaptionLine(str(row.id), size=0.8, faint=True, most=1)]


def _is_outside(row: Prediction) -> bool:
    x1, y1, x2, y2 = ordered_box(row.boxes[0])
    return x2 <= 0 or y2 <= 0 or x1 >= (row.width or x2) or y1 >= (row.height or y2)


def inset_size(image_wh: tuple[int, int], shown_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the small copy of an image that stands beside the text below the shown one."""
    longest = round(_INSET * max(_LEAST_WIDTH, shown_wh[0]))
    scale = longest / max(image_wh)
    return max(1, round(image_wh[0] * scale)), max(1, round(image_wh[1] * scale))


def with_caption(
    shown: Image.Image, lines: Sequence[CaptionLine], lettering: Lettering, inset: Image.Image | None = None
) -> Image.Image:
    """Return a picture with text below it, at least as wide as text needs.

    Args:
        shown: RGB.
        lines: of the text, see `caption_of`.
        lettering: draws the text.
        inset: the thumbnail, to the right of the text.
    """
    width = max(_LEAST_WIDTH, shown.width)
    size = min(30, max(15, width // 45))
    layout = _CaptionLayout(lettering, size, width - 3 * size - (inset.width + size if inset else 0))
    for line in lines:
        layout.add(line)
    inset_height = inset.height + 2 * size if inset else 0
    picture = Image.new("RGB", (width, shown.height + max(layout.height, inset_height) + 2 * size), "white")
    picture.paste(shown, ((width - shown.width) // 2, 0))
    top = shown.height + size
    layout.draw(picture, (size, top))
    if inset is not None:
        left = width - size - inset.width
        picture.paste(inset, (left, top))
        text, font = lettering.fit("thumbnail", round(size * 0.8))
        draw = ImageDraw.Draw(picture)
        draw.text((left + inset.width / 2, top + inset.height + size / 4), text, _FAINT, font, anchor="ma")
    return picture


class _CaptionLayout:
    """Lines of text, broken to a width, with their marks.

    Attributes:
        height: of all lines so far.
    """

    def __init__(self, lettering: Lettering, size: int, width: int) -> None:
        self._lettering, self._size, self._width = lettering, size, width
        self._placed: list[tuple[int, CaptionLine, str, AnyFont]] = []
        self._marks: list[tuple[int, str]] = []
        self.height = 0

    def add(self, line: CaptionLine) -> None:
        size = round(self._size * line.size)
        if line.mark:
            self._marks.append((self.height, line.mark))
        for text, font in self._lettering.lines(line.text, size, self._width - self._indent(line), line.most):
            self._placed.append((self.height, line, text, font))
            self.height += round(size * 1.4)
        self.height += self._size // 4

    def draw(self, picture: Image.Image, at: tuple[int, int]) -> None:
        draw, (left, top) = ImageDraw.Draw(picture), at
        for height, line, text, font in self._placed:
            place = (left + self._indent(line), top + height)
            draw.text(place, text, _FAINT if line.faint else _TEXT, font)
        for height, mark in self._marks:
            self._draw_mark(picture, mark, (left, top + height))

    def _indent(self, line: CaptionLine) -> int:
        return 0 if line.mark is None else (7 if line.mark == "heat" else 3) * self._size

    def _draw_mark(self, picture: Image.Image, mark: str, at: tuple[int, int]) -> None:
        left, top = at
        wide, high = (6 if mark == "heat" else 2) * self._size, self._size
        box = Image.new("RGB", (wide, high + self._size // 4), "white")
        whole = (0, 0, box.width - 1, box.height - 1)
        if mark == "heat":
            scale = heat_colours(np.linspace(0, 1, wide, dtype=np.float32))
            box = Image.fromarray(np.broadcast_to(scale, (high, *scale.shape)).copy())
        elif mark == "predicted":
            draw_solid(box, whole, PREDICTED, width=3)
        else:
            draw_dashed(box, whole, GOLD, width=3, dash=6)
        picture.paste(box, (left, top))
