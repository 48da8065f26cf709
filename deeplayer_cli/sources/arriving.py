"""Rows from a writer that may pause, such as a pipe."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK = 65536
_HELD = 64

T = TypeVar("T")


class PipeLines:
    """Reads lines as they arrive.

    Args:
        stream: with a file descriptor that nobody else reads.
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

    def _read(self) -> None:
        select.select([self._descriptor], [], [])  # a descriptor that is non-blocking would not wait by itself
        chunk = os.read(self._descriptor, _CHUNK)
        self._held += chunk
        self._ended = not chunk


class ArrivingRows(Iterator[T]):
    """Items that one thread takes from a source that may pause, and whether the next of them is there.

    At most a few items are held: a source that is faster than its reader waits.

    Args:
        items: read by the thread, one after the other; what they raise is raised here.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._queue: Queue[T | BaseException] = Queue(_HELD)
        self._next: list[T | BaseException] = []  # at most one, taken from the queue and not yet handed on
        self._closed = Event()
        # A daemon: a source that never ends must not keep the process alive.
        Thread(target=self._fill, name="deeplayer-rows", daemon=True).start()

    def __next__(self) -> T:
        """The next item, waited for."""
        while not self.wait(None):
            pass
        item = self._next[0]
        if isinstance(item, BaseException):  # the end, or an error: it stays, so that it comes again
            raise item
        self._next.clear()
        return item

    def ready(self) -> bool:
        """Whether an item, or the end, is there."""
        return self.wait(0)

    def wait(self, seconds: float | None) -> bool:
        """Wait for an item or the end, at most so many seconds; returns whether it is there."""
        if not self._next:
            try:
                self._next.append(self._queue.get(timeout=seconds) if seconds != 0 else self._queue.get_nowait())
            except Empty:
                return False
        return True

    def close(self) -> None:
        """Let the thread end after the item that it waits for."""
        self._closed.set()
        while not self._queue.empty():
            self._queue.get_nowait()

    def _fill(self) -> None:
        try:
            for item in self._items:
                self._queue.put(item)
                if self._closed.is_set():
                    return
            self._queue.put(StopIteration())
        except BaseException as error:
            self._queue.put(error)
