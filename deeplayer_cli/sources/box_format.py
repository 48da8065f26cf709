"""Watch the gold boxes of a source: are they written as they are read?"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.schema import BoxFormatCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.schema import BadRequest, Request, WrittenGold

_ROWS, _BOXES = 2000, 200  # that are looked at
_SOON = 20  # boxes after which a stream is judged for the first time


def refuse_doubtful(
    rows: Iterable[Request | BadRequest], name: str, size_of: Callable[[Path], Resolution] | None = None
) -> None:
    """Read the first rows of a source that can be read again, and refuse gold boxes that cannot be corners in pixels.

    Args:
        rows: whose gold boxes are read as corners in pixels, because nobody said how they are written.
        name: of their source.
        size_of: as in `GoldReader`: the size of an image in the frame of the boxes; None for the stored image's.

    Raises:
        DeeplayerError: many boxes cannot be corners in pixels, and nearly all can be something else; the sentence names
            the option that says so.
    """
    check = _GoldWatch(name, size_of)
    for row in islice(rows, _ROWS):
        check.add(row)
        if check.n == _BOXES:
            break
    check.refuse()


def watched(
    rows: Iterable[Request | BadRequest], name: str, size_of: Callable[[Path], Resolution] | None = None
) -> Iterator[Request | BadRequest]:
    """Pass the rows of a stream on, and look at the first gold boxes: soon, and once there are more of them.

    Args:
        rows: as in `refuse_doubtful`.
        name: of their source.
        size_of: as in `refuse_doubtful`.

    Raises:
        DeeplayerError: as `refuse_doubtful`.
    """
    check = _GoldWatch(name, size_of)
    for row in rows:
        if check.n < _BOXES:
            before = check.n
            check.add(row)
            if before < check.n and check.n in (_SOON, _BOXES):
                check.refuse()
        yield row
    if check.n < _BOXES:
        check.refuse()


class _GoldWatch:
    """The gold boxes of a source so far.

    Args:
        name: of the source.
        size_of: as in `refuse_doubtful`.
    """

    def __init__(self, name: str, size_of: Callable[[Path], Resolution] | None) -> None:
        self._name, self._check, self._of_image = name, BoxFormatCheck(), _ImageSizes(size_of or read_size)
        self._seen: list[WrittenGold] = []

    @property
    def n(self) -> int:
        """The number of boxes."""
        return self._check.n

    def add(self, row: Request | BadRequest) -> None:
        """Look at the box of a row, if it has one."""
        if row.written is not None:
            self._check.add(row.written.numbers, self._of_image.size(row.written))
            self._seen.append(row.written)

    def refuse(self) -> None:
        """Raise a `DeeplayerError` if the boxes so far are doubtful."""
        if doubt := self._check.doubt():
            if self._fit_turned_images():
                doubt = (
                    "gold boxes leave the stored images, and fit the images as EXIF turns them: use `ground "
                    "--exif-transpose`, or give --box-format xyxy if they are right"
                )
            raise DeeplayerError(f"{self._name}: {doubt}")

    def _fit_turned_images(self) -> bool:
        """Whether nearly all boxes are corners in the images as EXIF turns them."""
        check, of_image = BoxFormatCheck(), _ImageSizes(partial(read_size, exif_transpose=True))
        for written in self._seen:
            check.add(written.numbers, of_image.size(written))
        return "xyxy" in check.possible()


class _ImageSizes:
    """Sizes of images, with a memory for the last one: neighbouring rows often share their image."""

    def __init__(self, size_of: Callable[[Path], Resolution]) -> None:
        self._size_of = size_of
        self._path: object = None
        self._size: Resolution | None = None

    def size(self, written: WrittenGold) -> Resolution | None:
        """Width and height that the row states, else the image's own, or None."""
        if written.resolution_wh is not None or written.path is None:
            return written.resolution_wh
        if written.path != self._path:
            self._path, self._size = written.path, None
            with suppress(RowError):  # the row itself will say so
                self._size = self._size_of(written.path)
        return self._size
