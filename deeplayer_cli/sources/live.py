"""What comes from a writer that may pause, and whether the next of it has come."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CHUNK = 65536

T = TypeVar("T")


class LiveLines:
    """Reads lines as they arrive, and tells whether the next one would have to be waited for.

    Python's own buffer does not tell what it holds, so it is passed by.

    Args:
        stream: with a file descriptor; nobody else reads it.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        self._held = bytearray()
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """The next line with its newline, or at most ``limit`` bytes of it; empty at the end."""
        searched = 0
        while (newline := self._held.find(b"\n", searched, limit)) < 0 and len(self._held) < limit and not self._ended:
            searched = len(self._held)
            self._read()
        end = newline + 1 if newline >= 0 else min(limit, len(self._held))
        line = bytes(self._held[:end])
        del self._held[:end]
        return line

    def ready(self) -> bool:
        """Whether a line, or the end, is there; of one longer than a chunk, the rest is taken to be close."""
        while not self._ended and b"\n" not in self._held:
            if not self._has_more(0):
                return False
            if len(self._held) >= _CHUNK:
                return True
            self._read()
        return True

    def _read(self) -> None:
        self._has_more(None)  # a descriptor that someone else made non-blocking would refuse to wait
        chunk = os.read(self._descriptor, _CHUNK)
        self._held += chunk
        self._ended = not chunk

    def _has_more(self, seconds: float | None) -> bool:
        """Whether bytes, or the end, come within ``seconds``; None waits for them."""
        return bool(select.select([self._descriptor], [], [], seconds)[0])


class Sieve(Iterator[T]):
    """The items of a stream that are wanted, and whether the next of them has come.

    Only who sifts can tell: an unwanted item that has come says nothing about the one behind it.

    Args:
        items: as they come.
        ready: whether the next item, wanted or not, has come.
        wanted: asked about each item once, in order.
        limit: the most items to pass on; behind them is the end, whatever comes.
    """

    def __init__(
        self,
        items: Iterable[T],
        ready: Callable[[], bool],
        wanted: Callable[[T], bool] = lambda _: True,
        limit: int | None = None,
    ) -> None:
        self._items, self._ready = iter(items), ready
        self._wanted, self._left = wanted, math.inf if limit is None else limit
        self._held: list[T] = []  # at most one

    def __next__(self) -> T:
        """The next wanted item, waited for."""
        if not self._left:
            raise StopIteration
        item = self._held.pop() if self._held else next(filter(self._wanted, self._items))
        self._left -= 1
        return item

    def ready(self) -> bool:
        """Whether a wanted item, or the end, is there."""
        while self._left and not self._held and self._ready():
            came = list(islice(self._items, 1))
            if not came:
                return True
            self._held += filter(self._wanted, came)
        return bool(self._held) or not self._left
