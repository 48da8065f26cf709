"""Watch the gold boxes of a source: are they written as they are read?"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.schema import ConventionCheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.schema import BadRequest, Request, WrittenGold

_ROWS, _BOXES = 2000, 200  # that are looked at
_SOON = 20  # boxes after which a stream is judged for the first time


def refuse_doubtful(rows: Iterable[Request | BadRequest], name: str) -> None:
    """Read the first rows of a source, and refuse gold boxes that cannot be corners in pixels.

    Raises:
        DeeplayerError: see `watched`.
    """
    deque(watched(islice(rows, _ROWS), name), maxlen=0)


def watched(rows: Iterable[Request | BadRequest], name: str) -> Iterator[Request | BadRequest]:
    """Pass rows on, and look at the first gold boxes.

    Args:
        rows: whose gold boxes are read as corners in pixels, because nobody said how they are written.
        name: of their source.

    Raises:
        DeeplayerError: many boxes cannot be corners in pixels, and nearly all can be something else; the sentence names
            the option that says so.
    """
    check, of_image = ConventionCheck(), _ImageSizes()
    for row in rows:
        if row.written is not None and check.n < _BOXES:
            check.add(row.written.numbers, of_image.size(row.written))
            if check.n in (_SOON, _BOXES):
                _refuse(check, name)
        yield row
    if check.n < _BOXES:
        _refuse(check, name)


def _refuse(check: ConventionCheck, name: str) -> None:
    if doubt := check.doubt():
        raise DeeplayerError(f"{name}: {doubt}")


class _ImageSizes:
    """Sizes of images, with a memory for the last one: neighbouring rows often share their image."""

    def __init__(self) -> None:
        self._path: object = None
        self._size: Resolution | None = None

    def size(self, written: WrittenGold) -> Resolution | None:
        """Width and height that the row states, else the image's own, or None."""
        if written.resolution_wh is not None or written.path is None:
            return written.resolution_wh
        if written.path != self._path:
            self._path, self._size = written.path, None
            with suppress(RowError):  # the row itself will say so
                self._size = read_size(written.path)
        return self._size
