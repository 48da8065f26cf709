"""Images: safe decoding, and InternVL's dynamic tiling.

Both follow the original code to the bit (OpenGVLab/InternVL, ``internvl/train/dataset.py``: ``dynamic_preprocess`` and
``find_closest_aspect_ratio``): ``convert("RGB")`` drops alpha, EXIF orientation is not applied, and the whole image is
resized to the tile grid without keeping its aspect ratio. Tiles stay uint8; they are normalised where the model runs.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deeplayer_cli.errors import RowError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What pixels in 0..1 are normalised by, for each channel: InternVL's only choice."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

MAX_PIXELS = 178_956_970
"""Largest image decoded, in pixels: where Pillow itself stops believing that a file is no decompression bomb."""

MAX_BYTES = 512 * 2**20
"""Largest image file read, in bytes."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an image is cut into square tiles.

    Attributes:
        tile_size: side of a tile, in pixels.
        min_tiles: fewest tiles of the grid.
        max_tiles: most tiles of the grid; the thumbnail comes on top.
        thumbnail: whether an image of several tiles gets the whole image as one more, last tile.
    """

    tile_size: int = 448
    min_tiles: int = 1
    max_tiles: int = 6
    thumbnail: bool = True

    def __post_init__(self) -> None:
        if self.tile_size < 1:
            raise ValueError(f"a tile needs at least one pixel, not {self.tile_size}")
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(f"tiles must be 1 <= min <= max, not {self.min_tiles} and {self.max_tiles}")


def tile_grid(resolution_wh: tuple[int, int], tiling: Tiling) -> tuple[int, int]:
    """The grid (columns, rows) whose aspect ratio is closest to the image's.

    Of equally close grids, a bigger one wins if the image has more than half of its pixels.
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
    """How many tiles an image becomes, its thumbnail included."""
    columns, rows = tile_grid(resolution_wh, tiling)
    tiles = columns * rows
    return tiles + 1 if tiling.thumbnail and tiles > 1 else tiles


def tile_image(image: Image.Image, tiling: Tiling) -> npt.NDArray[np.uint8]:
    """Cut an RGB image into tiles, row by row, the thumbnail last.

    Returns:
        uint8 of shape ``(tiles, 3, tile_size, tile_size)``, contiguous, with ``count_tiles`` tiles.
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


def open_image(
    path: Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, exif_transpose: bool = False
) -> Image.Image:
    """Decode one image file, whole, into RGB.

    Of an animation it is the first frame; 16-bit grey is clipped to 255, as Pillow does and the original with it. A
    file that is only partly there is refused rather than half decoded.

    Args:
        path: of the file.
        max_pixels: more are not decoded.
        max_bytes: more are not read.
        exif_transpose: turn the image as its EXIF orientation says; the original code does not.

    Raises:
        RowError: ``image_missing``, ``image_unreadable`` (not a regular file, or no permission), ``image_too_large``
            or ``image_broken`` (empty, truncated, or in no format of `FORMATS`).
    """
    _check_file(path, max_bytes)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height <= max_pixels:
                return (ImageOps.exif_transpose(image) if exif_transpose else image).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RowError("image_too_large", f"{path} is too large to decode: {error or 'out of memory'}") from error
    except UnidentifiedImageError as error:
        raise RowError("image_broken", f"{path} is no image in any of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # a broken file makes decoders raise nearly anything: SyntaxError, struct.error, ...
        refused = isinstance(error, OSError) and error.errno is not None  # by the system, not by the decoder
        kind = "image_unreadable" if refused else "image_broken"
        raise RowError(kind, f"{path} cannot be decoded: {error}") from error
    raise RowError("image_too_large", f"{path} has {width} x {height} pixels; at most {max_pixels:,} are decoded")


def _check_file(path: Path, max_bytes: int) -> None:
    """Refuse what must not even be opened: a pipe would wait for a writer forever."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RowError("image_missing", f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise RowError("image_unreadable", f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise RowError("image_unreadable", f"{path} is {what}, not an image")
    if status.st_size == 0:
        raise RowError("image_broken", f"{path} is empty")
    if status.st_size > max_bytes:
        raise RowError("image_too_large", f"{path} has {status.st_size:,} bytes; at most {max_bytes:,} are read")


@cache
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """All grids (columns, rows) of an allowed number of tiles, small ones first."""
    sides = range(1, max_tiles + 1)
    grids = [(columns, rows) for columns in sides for rows in sides if min_tiles <= columns * rows <= max_tiles]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def _resize(image: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    return cast("npt.NDArray[np.uint8]", np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)))
