"""InternVL's dynamic tiling.

The tiles are bit-identical to those of the original code (OpenGVLab/InternVL, ``internvl/train/dataset.py``:
``dynamic_preprocess`` and ``find_closest_aspect_ratio``). The whole image is resized to the tile grid; its aspect ratio
is not kept. Tiles are uint8. They are normalised later, on the model's device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an image is cut into square tiles.

    Attributes:
        tile_size: side of a tile, in pixels.
        min_tiles: smallest number of tiles in the grid.
        max_tiles: largest number of tiles in the grid, without the thumbnail.
        thumbnail: whether an image of several tiles gets one more tile, the last one: the whole image, resized.

    Raises:
        ValueError: ``tile_size`` is below 1, or ``1 <= min_tiles <= max_tiles`` does not hold.
    """

    tile_size: int = 448
    min_tiles: int = 1
    max_tiles: int = 6
    thumbnail: bool = True

    def __post_init__(self) -> None:
        if self.tile_size < 1:
            raise ValueError(f"tile_size must be at least 1 pixel, not {self.tile_size}")
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(
                f"min_tiles and max_tiles must satisfy 1 <= min <= max, not {self.min_tiles} and {self.max_tiles}"
            )


def tile_grid(resolution_wh: tuple[int, int], tiling: Tiling) -> tuple[int, int]:
    """Choose the grid (columns, rows) whose aspect ratio is closest to that of the image.

    If several grids are equally close, a larger grid is chosen if the image has more than half of its pixels.

    Args:
        resolution_wh: width and height of the image, in pixels.
        tiling: settings of the tiling.
    """
    width, height = resolution_wh
    best, best_difference = (1, 1), float("inf")
    for columns, rows in _grids(tiling.min_tiles, tiling.max_tiles):
        difference = abs(width / height - columns / rows)
        fills_grid = width * height > 0.5 * tiling.tile_size**2 * columns * rows
        if difference < best_difference or (difference == best_difference and fills_grid):
            best, best_difference = (columns, rows), difference
    return best


def count_tiles(resolution_wh: tuple[int, int], tiling: Tiling) -> int:
    """Compute the number of tiles of an image of (width, height) pixels, including the thumbnail."""
    columns, rows = tile_grid(resolution_wh, tiling)
    tiles = columns * rows
    return tiles + 1 if tiling.thumbnail and tiles > 1 else tiles


def tile_image(image: Image.Image, tiling: Tiling) -> npt.NDArray[np.uint8]:
    """Cut an RGB image into tiles, row by row, with the thumbnail last.

    Returns:
        Contiguous uint8 array (tiles, 3, tile_size, tile_size), with ``count_tiles`` tiles.
    """
    size = tiling.tile_size
    columns, rows = tile_grid(image.size, tiling)
    tiles = np.empty((count_tiles(image.size, tiling), 3, size, size), dtype=np.uint8)
    whole = _resize(image, size * columns, size * rows)
    cut = whole.reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3)
    tiles[: rows * columns] = cut.reshape(rows * columns, 3, size, size)
    if len(tiles) > rows * columns:
        tiles[-1] = _resize(image, size, size).transpose(2, 0, 1)
    return tiles


@cache
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (columns, rows) with an allowed number of tiles, in order of that number."""
    grids = [
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
        if columns * rows >= min_tiles
    ]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def _resize(image: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    return cast("npt.NDArray[np.uint8]", np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)))
