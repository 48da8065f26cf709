"""A row as a picture: its image with the predicted and the gold boxes, its text below, and its visual tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PIL import Image

from deeplayer_cli.report.box_drawing import draw_dashed, draw_numbers, draw_solid, line_width, on_picture
from deeplayer_cli.report.caption import FURTHER, GOLD, PREDICTED, caption_of, inset_size, with_caption
from deeplayer_cli.report.tokens import TokenMaps, colour_by, dim_dropped, kept_maps

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.tokens import Heat
    from deeplayer_cli.schema import Prediction

    Paint = Callable[[Image.Image, npt.NDArray[np.float32]], Image.Image]

_LONGEST, _LEAST_LONGEST, _LEAST_SHORTEST = 1600, 640, 48  # sides of the drawn image, in pixels
_LONGEST_STRIP = 4096
_SEES_PIXELS = 4  # an image that is enlarged more than this shows its pixels as squares


def draw_row(image: Image.Image, row: Prediction, lettering: Lettering, heat: Heat | None = None) -> Image.Image:
    """Draw a row: the image with its boxes, and the text below it.

    The image is scaled so that it can be looked at. Without ``heat``, dropped tokens are dimmed if the row says which
    tokens were kept. The thumbnail's tokens are on a small copy of the image, beside the text.

    Args:
        image: RGB, in the frame of the row's boxes.
        row: an answered row, or an error row.
        lettering: draws the text.
        heat: values of the visual tokens, to draw instead of the kept ones.

    Returns:
        RGB.

    Raises:
        ValueError: the row's ``kept`` is not of its ``tiles``.
    """
    shown = _resized(image, drawing_size(image.size))
    paint: Paint
    if heat is None:
        maps, paint = kept_maps(row), dim_dropped
    else:
        maps, paint = TokenMaps.from_values(heat.values, heat.tiles), partial(colour_by, top=heat.top)
    if maps is not None:
        shown = paint(shown, maps.tiles)
    _draw_boxes(shown, image.size, row, lettering)
    caption = caption_of(row, heat, dimmed=maps is not None and heat is None)
    if maps is None or maps.thumbnail is None:
        return with_caption(shown, caption, lettering)
    small = _resized(image, inset_size(image.size, shown.size))
    return with_caption(shown, caption, lettering, paint(small, maps.thumbnail))


def drawing_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height at which an image of (width, height) pixels is drawn."""
    longest, shortest = max(size), min(size)
    scale = min(_LONGEST / longest, max(1.0, _LEAST_LONGEST / longest))
    if shortest * scale < _LEAST_SHORTEST:
        scale = max(scale, min(_LEAST_SHORTEST / shortest, _LONGEST_STRIP / longest))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if size[0] > _SEES_PIXELS * image.width:
        return image.resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _draw_boxes(shown: Image.Image, frame_wh: tuple[int, int], row: Prediction, lettering: Lettering) -> None:
    width = line_width(shown.size)
    boxes = [on_picture(box, frame_wh, shown.size) for box in row.boxes]
    colours = [PREDICTED, *[FURTHER] * len(boxes)][: len(boxes)]
    for box, colour in reversed([*zip(boxes, colours, strict=True)]):  # the first one, which counts, on top
        draw_solid(shown, box, colour, width)
    if row.gold is not None:
        draw_dashed(shown, on_picture(row.gold, frame_wh, shown.size), GOLD, width, 5 * width)
    if len(boxes) > 1:
        draw_numbers(shown, boxes, colours, lettering)
