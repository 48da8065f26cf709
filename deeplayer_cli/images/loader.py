"""Load the images of requests: threads decode and tile them ahead of the model, in order."""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.files import content_digest, reading_image
from deeplayer_cli.images.workers import Job, JobTimeoutError, Workers
from deeplayer_cli.schema import BadRequest, Request, check_gold, check_resolution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from PIL import Image

    AnyRequest = Request | BadRequest
    Tile = Callable[[Image.Image], tuple[np.ndarray, tuple[int, int]]]


IMAGE_TIMEOUT = 60.0
"""The default limit of the time that an image may take, in seconds."""


class ImageId(NamedTuple):
    """The identity of an image file; equal each time the same unchanged file is loaded.

    Attributes:
        path: absolute, with links followed.
        size: in bytes.
        mtime_ns: time of the last change, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def from_file(cls, path: Path) -> ImageId:
        """Return the identity of a file.

        Raises:
            RowError: ``image_missing`` or ``image_unreadable``.
        """
        with reading_image(path):
            status = path.stat()
        return cls(os.path.realpath(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image ready for the vision tower.

    Attributes:
        id: the file that it was loaded from.
        tiles: (T, 3, S, S) uint8, the thumbnail last.
        resolution_wh: the stored image's width and height in pixels.
        grid: columns and rows of tiles.
        digest: of the file's content, 16 hexadecimal digits; equal for copies of a file.
    """

    id: ImageId
    tiles: np.ndarray
    resolution_wh: tuple[int, int]
    grid: tuple[int, int]
    digest: str


@dataclass(frozen=True)
class LoadedRequest:
    """A request with its image, or with an error: of a bad request, of its image, or of a row that does not fit it."""

    request: Request | BadRequest
    image: LoadedImage | None
    error: RowError | None


class WorkerTimes:
    """Seconds by step, summed over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = Lock()

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Add the time of the block inside to ``step``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - begun


@dataclass(frozen=True)
class ImageLoader:
    """Loads one image file.

    Attributes:
        decode: decodes a file to RGB, or raises a ``RowError``.
        tile: cuts an image; returns its tiles (T, 3, S, S) uint8 and their grid (columns, rows).
        times: collects the seconds of both steps.
    """

    decode: Callable[[Path], Image.Image]
    tile: Tile
    times: WorkerTimes

    def __call__(self, path: Path) -> LoadedImage:
        """Load the image.

        Raises:
            RowError: the image cannot be read or decoded, or there is no memory to cut it.
        """
        with self.times.timing("read and decode"):
            image = self.decode(path)
            digest = content_digest(path)
        try:
            with self.times.timing("tile"):
                tiles, grid = self.tile(image)
        except MemoryError as error:
            raise RowError("image_too_large", f"{path} is too large to cut into tiles: out of memory") from error
        return LoadedImage(ImageId.from_file(path), tiles, image.size, grid, digest)


def open_in_time(path: Path, timeout: float = IMAGE_TIMEOUT) -> Image.Image:
    """Decode an image as `open_image` does, with its limits, in a thread that may get stuck.

    Raises:
        RowError: as `open_image`; ``image_timeout`` if decoding takes longer than ``timeout`` seconds.
    """
    worker: Workers[Image.Image] = Workers(1, timeout)
    try:
        return worker.result(worker.submit(partial(open_image, path)))
    except JobTimeoutError as error:
        raise _too_slow(path, timeout) from error
    finally:
        worker.close()


def read_ahead(
    rows: Iterable[AnyRequest],
    load: Callable[[Path], LoadedImage],
    *,
    workers: int,
    window: int,
    ready: Callable[[], bool] = lambda: True,
    timeout: float = IMAGE_TIMEOUT,
) -> Iterator[list[LoadedRequest]]:
    """Yield one loaded request for each row, in order, a window at a time, while threads prepare the next window.

    An image that several nearby rows name is loaded once.

    Args:
        rows: requests.
        load: loads an image file, or raises a ``RowError``.
        workers: number of threads.
        window: the most requests to yield at once; fewer when ``rows`` end, or no further row is ready.
        ready: whether the next row can be taken without waiting; a row that has come never waits for a later one.
        timeout: seconds that an image may take; a row whose image takes longer gets the error ``image_timeout``.
    """
    rows = iter(rows)
    ahead = window + workers
    pool: Workers[LoadedImage] = Workers(workers, timeout)
    images: OrderedDict[Path, Job[LoadedImage]] = OrderedDict()
    waiting: deque[tuple[AnyRequest, Job[LoadedImage] | None]] = deque()

    def start(row: AnyRequest) -> Job[LoadedImage] | None:
        if isinstance(row, BadRequest):
            return None
        if row.path not in images:
            images[row.path] = pool.submit(partial(load, row.path))
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
            yield [_loaded(row, partial(pool.result, job) if job else None, timeout) for row, job in now]
    finally:
        pool.close()


def at_its_place(row: Request, error: RowError) -> RowError:
    """Return an error of a row's image with the place of the row in its message."""
    hint = f"; {row.hint}" if row.hint and error.kind == "image_missing" else ""
    return RowError(error.kind, f"{row.where}: {error.message}{hint}")


def _loaded(row: AnyRequest, result: Callable[[], LoadedImage] | None, timeout: float) -> LoadedRequest:
    if isinstance(row, BadRequest):
        return LoadedRequest(row, None, row.error)
    assert result is not None  # noqa: S101 - only a bad request has no image
    image = None
    try:
        image = result()
        check_resolution(row.resolution_wh, image.resolution_wh)
        if row.gold is not None:
            check_gold(row.gold, image.resolution_wh)
    except JobTimeoutError:
        error = _too_slow(row.path, timeout)
        message = f"{row.where}: {error.message}; --image-timeout sets the limit"
        return LoadedRequest(row, None, RowError(error.kind, message))
    except RowError as error:
        return LoadedRequest(row, image, at_its_place(row, error))
    return LoadedRequest(row, image, None)


def _too_slow(path: Path, timeout: float) -> RowError:
    return RowError("image_timeout", f"{path} takes longer than {timeout:g} seconds to decode")
