"""Requests to requests with tiles: images are read and tiled in worker threads, ahead of the model and in order."""

from __future__ import annotations

from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from deeplayer_cli.errors import RowError
from deeplayer_cli.imaging import open_image, tile_grid, tile_image
from deeplayer_cli.schema import BadRequest, Request, check_gold, check_resolution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from PIL import Image

    from deeplayer_cli.imaging import Tiling


@dataclass(frozen=True, eq=False)
class TiledImage:
    """An image ready for the vision tower; nearby requests about one file share one object.

    Attributes:
        tiles: (T, 3, S, S) uint8, the thumbnail last.
        resolution_wh: the stored image's width and height in pixels.
        grid: columns and rows of tiles.
    """

    tiles: np.ndarray
    resolution_wh: tuple[int, int]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Job:
    """A request that came through with its image, or one that failed on the way."""

    request: Request | BadRequest
    image: TiledImage | None
    error: RowError | None


def read_ahead(
    rows: Iterable[Request | BadRequest],
    tiling: Tiling,
    *,
    read: Callable[[Path], Image.Image] = open_image,
    workers: int,
    ahead: int,
) -> Iterator[Job]:
    """Yield one job a row, in order, with up to ``ahead`` rows being prepared by ``workers`` threads.

    An image that more rows ask for while it is held is read once.

    Args:
        rows: requests.
        tiling: how images are cut.
        read: decodes an image file to RGB, or raises a ``RowError``.
        workers: threads.
        ahead: rows.
    """
    rows = iter(rows)
    images: OrderedDict[Path, Future[TiledImage]] = OrderedDict()
    waiting: deque[tuple[Request | BadRequest, Future[TiledImage] | None]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="deeplayer-image") as pool:

        def start(row: Request | BadRequest) -> Future[TiledImage] | None:
            if isinstance(row, BadRequest):
                return None
            if row.path not in images:
                images[row.path] = pool.submit(_load, row.path, tiling, read)
            images.move_to_end(row.path)
            while len(images) > ahead:
                images.popitem(last=False)
            return images[row.path]

        try:
            for row in islice(rows, ahead):
                waiting.append((row, start(row)))
            while waiting:
                yield _job(*waiting.popleft())
                for row in islice(rows, 1):
                    waiting.append((row, start(row)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _load(path: Path, tiling: Tiling, read: Callable[[Path], Image.Image]) -> TiledImage:
    image = read(path)
    return TiledImage(tile_image(image, tiling), image.size, tile_grid(image.size, tiling))


def _job(row: Request | BadRequest, future: Future[TiledImage] | None) -> Job:
    if isinstance(row, BadRequest):
        return Job(row, None, row.error)
    assert future is not None  # noqa: S101 - only a bad request has no image
    try:
        image = future.result()
        check_resolution(row.resolution_wh, image.resolution_wh)
        if row.gold is not None:
            check_gold(row.gold, image.resolution_wh)
    except RowError as error:
        return Job(row, None, RowError(error.kind, f"{row.where}: {error.message}"))
    return Job(row, image, None)
