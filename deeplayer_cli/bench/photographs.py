"""The image pipeline without a model, from files to tiles, beside plain Pillow calls."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.loader import ImageLoader, WorkerTimes, read_ahead
from deeplayer_cli.models.internvl.tiling import count_tiles, tile_grid, tile_image
from deeplayer_cli.schema import Request, parse_request

if TYPE_CHECKING:
    from deeplayer_cli.models.internvl.tiling import Tiling

_SIZE = (640, 480)
_STRIDE = 97  # the checksum of an image's tiles reads every 97th value

Seen = list[tuple[tuple[int, ...], int]]
"""Shape and checksum of each image's tiles."""


@dataclass(frozen=True)
class Photographs:
    """JPEG files of 640 x 480 pixels.

    Attributes:
        folder: folder of the files; it is deleted with this object.
        tiling: how images are cut into tiles.
        workers: number of threads.
    """

    folder: TemporaryDirectory[str]
    tiling: Tiling
    workers: int

    @classmethod
    def make(cls, count: int, tiling: Tiling, workers: int) -> Photographs:
        """Write ``count`` files of blurred noise."""
        folder = TemporaryDirectory()
        rng = random.Random(0)
        for number in range(count):
            image = Image.frombytes("RGB", (64, 48), rng.randbytes(64 * 48 * 3)).resize(_SIZE)
            image.save(Path(folder.name, f"{number}.jpg"), quality=90)
        return cls(folder, tiling, workers)

    @property
    def n_tiles(self) -> int:
        """Number of tiles of an image, the thumbnail included."""
        return count_tiles(_SIZE, self.tiling)

    @property
    def paths(self) -> list[Path]:
        """The paths of the files, sorted."""
        return sorted(Path(self.folder.name).iterdir())

    def bare(self) -> Seen:
        """Make the tiles with plain Pillow calls."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._bare, self.paths))

    def delivered(self) -> Seen:
        """Make the tiles with the image pipeline of `ground`."""
        rows = (parse_request({"image": str(p), "expression": "x"}, p.name, p.name, Path()) for p in self.paths)
        requests = [row for row in rows if isinstance(row, Request)]
        load = ImageLoader(open_image, self._tile, WorkerTimes())
        windows = read_ahead(requests, load, workers=self.workers, window=32)
        return [_glance(loaded.image.tiles) for window in windows for loaded in window if loaded.image is not None]

    def _tile(self, image: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
        return tile_image(image, self.tiling), tile_grid(image.size, self.tiling)

    def _bare(self, path: Path) -> tuple[tuple[int, ...], int]:
        side, (columns, rows) = self.tiling.tile_size, tile_grid(_SIZE, self.tiling)
        image = Image.open(path).convert("RGB")
        whole = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
        corners = [(column * side, row * side) for row in range(rows) for column in range(columns)]
        cut = [whole.crop((x, y, x + side, y + side)) for x, y in corners]
        if len(cut) < self.n_tiles:
            cut.append(image.resize((side, side), Image.Resampling.BICUBIC))
        return _glance(np.stack([np.asarray(tile).transpose(2, 0, 1) for tile in cut]))


def _glance(tiles: np.ndarray) -> tuple[tuple[int, ...], int]:
    return tiles.shape, int(tiles.reshape(-1)[::_STRIDE].sum(dtype=np.int64))
