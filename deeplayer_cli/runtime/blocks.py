"""Blocks of rows, as they travel to the workers of a cluster, and the answers that come back."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.files import MAX_BYTES, opened_file, reading_image
from deeplayer_cli.images.loader import at_its_place
from deeplayer_cli.schema import BadRequest, Prediction, Request
from deeplayer_cli.sources import ArrivingRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from deeplayer_cli.runtime.settings import Settings

    Row = Request | BadRequest

logger = logging.getLogger("deeplayer")

BATCHES = 4
"""Batches of a block."""

_SHIPPED_BYTES = 2**24
"""A block ends after so many bytes of images that travel with it."""

_MOST_SIZES = 8
"""A block that waits for the end of an image's rows ends after so many times its size."""


@dataclass(eq=False)
class Block:
    """Rows that travel together.

    Attributes:
        rows: with ids and places; all rows of an image that follow each other, if they are not too many.
        settings: of each row, those that it is answered under; None for the settings of the run.
        index: its position in the order of blocks.
        n_deaths: number of workers that died while they held it.
    """

    rows: Sequence[Row]
    settings: Sequence[Sequence[Settings]] | None = None
    index: int = 0
    n_deaths: int = 0

    @property
    def answered_rows(self) -> Sequence[Row]:
        """The row of each answer, in the order of the answers: a row under several settings occurs as often."""
        if self.settings is None:
            return self.rows
        return [row for row, settings in zip(self.rows, self.settings, strict=True) for _ in settings]


@dataclass(frozen=True)
class BlockAnswers:
    """What a worker returns for a block.

    Attributes:
        predictions: one for each of the block's `answered_rows`.
        remarks: what the worker logged meanwhile: levels and messages.
        advice: see `deeplayer_cli.runtime.run.Answerer.advice`.
    """

    predictions: Sequence[Prediction]
    remarks: Sequence[tuple[int, str]] = ()
    advice: str | None = None

    def log_remarks(self) -> None:
        """Log here what the worker logged there."""
        for level, message in self.remarks:
            logger.log(level, "%s", message)


def blocks_of(rows: Iterable[Row], size: int, *, whole_images: bool, shipped: bool) -> Iterator[Sequence[Row]]:
    """Yield rows in blocks; while no row has come, an empty block.

    Args:
        rows: requests. Rows of an `ArrivingRows` do not wait for later rows.
        size: a block ends at the first new image after so many rows.
        whole_images: all rows of an image are in one block, however many they are.
        shipped: images travel with their block, which also ends after 16 MiB of them.
    """
    ready = rows.ready if isinstance(rows, ArrivingRows) else lambda: True
    rows = iter(rows)
    block: list[Row] = []
    path, n_bytes = None, 0
    while True:
        while not ready():
            yield [] if whole_images else block
            block, n_bytes = (block, n_bytes) if whole_images else ([], 0)
        row = next(rows, None)
        if row is None:
            break
        is_new = isinstance(row, Request) and row.path != path
        is_full = len(block) >= size or n_bytes >= _SHIPPED_BYTES
        if block and ((is_full and is_new) or (len(block) >= _MOST_SIZES * size and not whole_images)):
            yield block
            block, n_bytes = [], 0
        if isinstance(row, Request) and is_new:
            path = row.path
            n_bytes += _size(path) if shipped else 0
        block.append(row)
    if block:
        yield block


def read_images(rows: Sequence[Row]) -> tuple[Sequence[Row], dict[Path, bytes]]:
    """Read the image files of rows; a row whose file cannot be read becomes a `BadRequest`."""
    images: dict[Path, bytes] = {}
    return [_with_image(row, images) for row in rows], images


def answer(
    ground: Callable[[Sequence[Row]], Iterable[Prediction]], rows: Sequence[Row], images: Mapping[Path, bytes] | None
) -> Sequence[Prediction]:
    """Answer the rows of a block.

    Args:
        ground: answers rows whose images are here.
        rows: of the block.
        images: contents of their image files by path; None: the files are here.
    """
    unpacked: AbstractContextManager[Mapping[Path, Path]] = nullcontext({}) if images is None else _unpacked(images)
    with unpacked as places:
        here = [replace(row, path=places[row.path]) if places and isinstance(row, Request) else row for row in rows]
        return [_in_own_words(one, places) for one in ground(here)]


@contextmanager
def collected_remarks(logger: logging.Logger) -> Iterator[list[tuple[int, str]]]:
    """Yield a list that gets the level and the message of everything that is logged inside."""
    handler = _Collector()
    logger.addHandler(handler)
    try:
        yield handler.remarks
    finally:
        logger.removeHandler(handler)


@dataclass(eq=False)
class _Collector(logging.Handler):
    remarks: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.remarks.append((record.levelno, record.getMessage()))


def _size(path: Path) -> int:
    try:
        with reading_image(path):
            return path.stat().st_size
    except RowError:
        return 0


def _with_image(row: Row, images: dict[Path, bytes]) -> Row:
    if isinstance(row, BadRequest) or row.path in images:
        return row
    try:
        with opened_file(row.path, MAX_BYTES) as file, reading_image(row.path):
            images[row.path] = file.read()
    except RowError as error:
        return BadRequest.from_row(row, at_its_place(row, error))
    return row


@contextmanager
def _unpacked(images: Mapping[Path, bytes]) -> Iterator[Mapping[Path, Path]]:
    """Write images into a temporary folder; yield their paths in it by their own paths."""
    with TemporaryDirectory(prefix="deeplayer-images-") as folder:
        places = {path: Path(folder, f"{number}.image") for number, path in enumerate(images)}
        for path, content in images.items():
            places[path].write_bytes(content)
        yield places


def _in_own_words(prediction: Prediction, places: Mapping[Path, Path]) -> Prediction:
    """Return a prediction whose error names the row's own path, not the place where a worker put its image."""
    if prediction.error is None:
        return prediction
    message = prediction.error["message"]
    for path, place in places.items():
        message = message.replace(str(place), str(path))
    return replace(prediction, error={**prediction.error, "message": message})
