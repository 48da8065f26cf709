"""Visual tokens over an image: dropped ones dimmed, or each in the colour of its attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from deeplayer_cli.report.colours import heat_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from deeplayer_cli.schema import Prediction, TileLayout

    Values = npt.NDArray[np.float32]

_DIMMED = 0.45  # of the brightness
_HEAT = 0.65  # of the colour, over grey


@dataclass(frozen=True)
class Heat:
    """One value for each visual token.

    Attributes:
        values: (n_visual,) float, at least 0.
        tiles: where the tokens lie.
        title: what the values are.
    """

    values: Sequence[float]
    tiles: TileLayout
    title: str

    @property
    def top(self) -> float:
        """The largest value; 1.0 if all are 0."""
        return max(self.values, default=0.0) or 1.0


@dataclass(frozen=True)
class TokenMaps:
    """One value for each visual token, as pictures.

    Attributes:
        tiles: (rows of tokens, columns of tokens) of all tiles, which cover the whole image.
        thumbnail: (side, side) of the thumbnail, which is the whole image again; None without one.
    """

    tiles: Values
    thumbnail: Values | None

    @classmethod
    def from_values(cls, values: Sequence[float], layout: TileLayout) -> TokenMaps:
        """Put the value of each visual token in its place."""
        side = layout.side
        tiles = np.zeros((layout.rows * side, layout.columns * side), np.float32)
        thumbnail = np.zeros((side, side), np.float32)
        for index, value in enumerate(values):
            on_thumbnail, column, row = layout.cell(index)
            (thumbnail if on_thumbnail else tiles)[row, column] = value
        return cls(tiles, thumbnail if layout.thumbnail else None)

    @classmethod
    def from_kept(cls, kept: Sequence[int], layout: TileLayout) -> TokenMaps:
        """Make maps that are 1 where a token was kept.

        Raises:
            ValueError: a kept token is not one of the image.
        """
        values = np.zeros(layout.n_visual, np.float32)
        for index in kept:
            layout.cell(index)
            values[index] = 1
        return cls.from_values(values.tolist(), layout)


def kept_maps(row: Prediction) -> TokenMaps | None:
    """Return the maps of a row's kept tokens; None if the row does not have them, or they are all there is.

    Raises:
        ValueError: the row's ``kept`` is not of its ``tiles``.
    """
    if row.kept is None or row.tiles is None or len(row.kept) == row.tiles.n_visual:
        return None
    return TokenMaps.from_kept(row.kept, row.tiles)


def dim_dropped(image: Image.Image, kept: Values) -> Image.Image:
    """Dim an image where tokens were dropped, and draw a white line around the kept ones.

    Args:
        image: RGB.
        kept: (rows, columns), 1 where a token was kept; it covers the whole image.
    """
    mask = _stretched(kept, image.size) > 0
    dark = np.asarray(ImageOps.grayscale(image), np.float32)[..., None] * _DIMMED
    drawn = np.where(mask[..., None], np.asarray(image), dark.astype(np.uint8))
    drawn[_edges(mask, max(1, round((image.width * image.height) ** 0.5 / 600)))] = 255
    return Image.fromarray(drawn)


def colour_by(image: Image.Image, values: Values, top: float) -> Image.Image:
    """Lay the colours of values over an image in grey.

    Args:
        image: RGB.
        values: (rows, columns), from 0 to ``top``; they cover the whole image.
        top: the value of the brightest colour, above 0.
    """
    colours = heat_colours(_stretched(values, image.size) / np.float32(top))
    grey = np.asarray(ImageOps.grayscale(image), np.float32)[..., None]
    return Image.fromarray((_HEAT * colours + (1 - _HEAT) * grey).round().astype(np.uint8))


def _stretched(values: Values, size: tuple[int, int]) -> Values:
    """Stretch (rows, columns) over (height, width) pixels; every pixel has the value of the token that covers it."""
    (rows, columns), (width, height) = values.shape, size
    return values[np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)]


def _edges(mask: npt.NDArray[np.bool_], thickness: int) -> npt.NDArray[np.bool_]:
    """The pixels of a mask's complement that are nearer to the mask than ``thickness``."""
    near = mask.copy()
    for _ in range(thickness):
        near[1:] |= near[:-1].copy()
        near[:-1] |= near[1:].copy()
        near[:, 1:] |= near[:, :-1].copy()
        near[:, :-1] |= near[:, 1:].copy()
    return near & ~mask
