"""Windows of rows with their images, from which batches are made."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import MAX_PIXELS, open_image
from deeplayer_cli.images.loader import ImageLoader, read_ahead
from deeplayer_cli.models.internvl.tiling import tile_grid, tile_image
from deeplayer_cli.schema import BadRequest, Request, parse_request
from deeplayer_cli.schema.values import show
from deeplayer_cli.sources import ArrivingRows, by_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from PIL import Image

    from deeplayer_cli.images.loader import LoadedRequest, WorkerTimes
    from deeplayer_cli.models.internvl.tiling import Tiling
    from deeplayer_cli.runtime.settings import Settings

    AnyRow = Request | BadRequest | Mapping[str, object]

_Row = TypeVar("_Row")

_POLL_SECONDS = 0.01


def loaded_windows(
    rows: Iterable[AnyRow],
    settings: Settings,
    tiling: Tiling,
    *,
    window: int,
    times: WorkerTimes,
    stopped: Callable[[], bool],
) -> Iterator[Sequence[LoadedRequest]]:
    """Yield rows with their images, a window at a time, or with ``share="union"`` all rows of an image at a time.

    Args:
        rows: requests, or mappings with the fields of one. Rows of an `ArrivingRows` are taken when they come.
        settings: of the run.
        tiling: how images are cut.
        window: the most rows at a time.
        times: collects the seconds of the threads that prepare images.
        stopped: called while no row has come; once it is true, no more rows are read.

    Raises:
        DeeplayerError: with ``share="union"``, an image occurs again after other images.
    """
    ready = rows.ready if isinstance(rows, ArrivingRows) else lambda: True
    requests = (_as_request(row, index) for index, row in enumerate(_until_stopped(rows, stopped, ready), start=1))
    decode = partial(open_image, max_pixels=settings.max_pixels or MAX_PIXELS, exif_transpose=settings.exif_transpose)
    windows = read_ahead(
        requests,
        ImageLoader(decode, partial(_tile, tiling), times),
        workers=settings.workers or min(8, os.cpu_count() or 1),
        window=window,
        ready=ready,
        timeout=settings.image_timeout,
    )
    if settings.share == "union":
        return by_image(chain.from_iterable(windows), lambda loaded: loaded.request)
    return windows


def _until_stopped(rows: Iterable[_Row], stopped: Callable[[], bool], ready: Callable[[], bool]) -> Iterator[_Row]:
    """Yield the rows; end if the run is stopped while the next row has not come."""
    rows = iter(rows)
    while True:
        while not ready():
            if stopped():
                return
            time.sleep(_POLL_SECONDS)
        try:
            row = next(rows)
        except StopIteration:
            return
        yield row


def _as_request(row: object, index: int) -> Request | BadRequest:
    if isinstance(row, Request | BadRequest):
        return row
    where = f"row {index}"
    if not isinstance(row, Mapping):
        error = RowError("bad_row", f"{where}: a row must be a mapping with image and expression, not {show(row)}")
        return BadRequest(index, None, None, None, {}, where, error)
    return parse_request(row, where, index, Path())


def _tile(tiling: Tiling, image: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
    return tile_image(image, tiling), tile_grid(image.size, tiling)
