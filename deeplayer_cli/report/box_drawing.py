"""Boxes on an image: solid and dashed outlines, and numbers that keep apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import ImageDraw

from deeplayer_cli.boxes import clip_box
from deeplayer_cli.formats.labelled import ordered_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.report.lettering import Lettering

    IntBox = tuple[int, int, int, int]

_HALO = "black"


def line_width(size: tuple[int, int]) -> int:
    """The width of lines on an image of (width, height) pixels."""
    return max(3, round((size[0] * size[1]) ** 0.5 / 220))


def on_picture(box: Box, frame_wh: Resolution, size: tuple[int, int]) -> IntBox:
    """Return the pixels of a box on a picture: clipped to it, corners in order.

    Args:
        box: xyxy in pixels of the frame.
        frame_wh: width and height of the frame.
        size: width and height of the picture.
    """
    x1, y1, x2, y2 = ordered_box(clip_box(box, frame_wh))
    across, down = size[0] / frame_wh[0], size[1] / frame_wh[1]
    right, bottom = size[0] - 1, size[1] - 1
    return (
        *(min(right, round(x1 * across)), min(bottom, round(y1 * down))),
        *(min(right, round(x2 * across)), min(bottom, round(y2 * down))),
    )


def draw_solid(image: Image.Image, box: IntBox, colour: str, width: int) -> None:
    """Draw an outline with a black rim."""
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, outline=_HALO, width=width + 2)
    draw.rectangle(_shrunk(box, 1), outline=colour, width=width)


def draw_dashed(image: Image.Image, box: IntBox, colour: str, width: int, dash: int) -> None:
    """Draw dashes of about ``dash`` pixels, with a black rim; what is between them stays visible."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    thick = width + 1
    for start, end in _dashes(left, right, dash):
        for edge in (min(bottom, top + thick), bottom):
            _dash(draw, (start, max(top, edge - thick), end, edge), colour)
    for start, end in _dashes(top, bottom, dash):
        for edge in (min(right, left + thick), right):
            _dash(draw, (max(left, edge - thick), start, edge, end), colour)


def draw_numbers(image: Image.Image, boxes: Sequence[IntBox], colours: Sequence[str], lettering: Lettering) -> None:
    """Write its number, from 1, at a corner of each box, where it covers the least of the numbers before."""
    draw, size = ImageDraw.Draw(image), max(13, line_width(image.size) * 5)
    taken: list[IntBox] = []
    for number, (box, colour) in enumerate(zip(boxes, colours, strict=True), start=1):
        text, font = lettering.fit(str(number), size)
        wide, high = round(font.getlength(text)) + size // 2, round(size * 1.25)
        place = min(_places(box, wide, high, image.size), key=lambda one: sum(_shared(one, other) for other in taken))
        taken.append(place)
        draw.rectangle(place, fill=colour, outline=_HALO)
        draw.text(((place[0] + place[2]) / 2, (place[1] + place[3]) / 2), text, fill="black", font=font, anchor="mm")


def _places(box: IntBox, wide: int, high: int, size: tuple[int, int]) -> list[IntBox]:
    """Return places for a number: outside of the corners, then inside, all moved into the picture."""
    left, top, right, bottom = box
    corners = [
        *((left, top - high), (right - wide, top - high), (left, bottom), (right - wide, bottom)),
        *((left, top), (right - wide, top), (left, bottom - high), (right - wide, bottom - high)),
    ]
    inside = [(max(0, min(x, size[0] - wide - 1)), max(0, min(y, size[1] - high - 1))) for x, y in corners]
    return [(x, y, x + wide, y + high) for x, y in inside]


def _shared(one: IntBox, other: IntBox) -> int:
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, high)


def _dashes(start: int, end: int, length: int) -> list[tuple[int, int]]:
    """Divide a side into dashes with as long gaps, so that it begins and ends with a dash."""
    n_gaps = max(0, round(((end - start) / length - 1) / 2))
    step = (end - start) / (2 * n_gaps + 1)
    return [(round(start + 2 * index * step), round(start + (2 * index + 1) * step)) for index in range(n_gaps + 1)]


def _dash(draw: ImageDraw.ImageDraw, box: IntBox, colour: str) -> None:
    draw.rectangle(box, fill=colour, outline=_HALO)


def _shrunk(box: IntBox, by: int) -> IntBox:
    left, top, right, bottom = box
    across, down = min(by, (right - left) // 2), min(by, (bottom - top) // 2)
    return left + across, top + down, right - across, bottom - down
