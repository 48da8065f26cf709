"""Requests to requests with tiles: images are read and tiled in worker threads, ahead of the model and in order."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.imaging import open_image, tile_grid, tile_image
from deeplayer_cli.known import Ids
from deeplayer_cli.schema import BadRequest, Request, check_gold, check_resolution
from deeplayer_cli.sources.files import in_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from PIL import Image

    from deeplayer_cli.imaging import Tiling


_Item = TypeVar("_Item")


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


class Effort:
    """Seconds by step, summed over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = Lock()

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Count what runs inside as ``step``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - begun


def read_ahead(
    rows: Iterable[Request | BadRequest],
    tiling: Tiling,
    *,
    read: Callable[[Path], Image.Image] = open_image,
    workers: int,
    window: int,
    ready: Callable[[], bool] = lambda: True,
    effort: Effort | None = None,
) -> Iterator[list[Job]]:
    """Yield one job a row, in order, a window of them at a time, while threads prepare the next window.

    An image that more rows ask for while it is held is read once.

    Args:
        rows: requests.
        tiling: how images are cut.
        read: decodes an image file to RGB, or raises a ``RowError``.
        workers: threads.
        window: the most jobs to yield at once; fewer when ``rows`` end, or none is ready.
        ready: whether the next row is there; while it is not, nothing that is there waits for it.
        effort: told what the threads do.
    """
    rows, effort = iter(rows), effort or Effort()
    ahead = window + workers
    images: OrderedDict[Path, Future[TiledImage]] = OrderedDict()
    waiting: deque[tuple[Request | BadRequest, Future[TiledImage] | None]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="deeplayer-image") as pool:

        def start(row: Request | BadRequest) -> Future[TiledImage] | None:
            if isinstance(row, BadRequest):
                return None
            if row.path not in images:
                images[row.path] = pool.submit(_load, row.path, tiling, read, effort)
            images.move_to_end(row.path)
            while len(images) > ahead:
                images.popitem(last=False)
            return images[row.path]

        def take(most: int) -> None:
            waiting.extend((row, start(row)) for row in islice(rows, most))

        def take_ready() -> None:
            while len(waiting) < ahead and ready():
                held = len(waiting)
                take(1)
                if len(waiting) == held:
                    return

        try:
            while True:
                take_ready()
                if not waiting:
                    take(1)
                if not waiting:
                    return
                now = [waiting.popleft() for _ in range(min(window, len(waiting)))]
                take_ready()
                yield [_job(*one) for one in now]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def by_image(items: Iterable[_Item], request_of: Callable[[_Item], Request | BadRequest]) -> Iterator[list[_Item]]:
    """Lists of neighbouring items about one image; a bad request joins those before it.

    Args:
        items: in order.
        request_of: finds an item's request.

    Raises:
        DeeplayerError: an image comes up again after others.
    """
    group: list[_Item] = []
    path, seen = None, Ids()
    for item in items:
        request = request_of(item)
        if isinstance(request, Request) and request.path != path:
            if group:
                yield group
            group, path = [], request.path
            if not seen.add(in_text(path)):
                raise DeeplayerError(
                    f"{request.where}: {request.image} came up before, and other images since: --share union takes "
                    "all rows of an image together, so sort them by image"
                )
        group.append(item)
    if group:
        yield group


def _load(path: Path, tiling: Tiling, read: Callable[[Path], Image.Image], effort: Effort) -> TiledImage:
    with effort.timing("read and decode"):
        image = read(path)
    with effort.timing("tile"):
        tiles = tile_image(image, tiling)
    return TiledImage(tiles, image.size, tile_grid(image.size, tiling))


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
