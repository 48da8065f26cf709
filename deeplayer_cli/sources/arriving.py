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
        stream: has a file descriptor, which nothing else may read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        self._held = bytearray()
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """Return the next line with its newline, or at most ``limit`` bytes of it; empty at the end."""
        searched = 0
        while (newline := self._held.find(b"\n", searched, limit)) < 0 and len(self._held) < limit and not self._ended:
            searched = len(self._held)
            self._read()
        end = newline + 1 if newline >= 0 else min(limit, len(self._held))
        line = bytes(self._held[:end])
        del self._held[:end]
        return line

    def _read(self) -> None:
        select.select([self._descriptor], [], [])  # reading a non-blocking descriptor does not wait
        chunk = os.read(self._descriptor, _CHUNK)
        self._held += chunk
        self._ended = not chunk


class ArrivingRows(Iterator[T]):
    """Iterates over a source that may pause; a thread reads ahead, so `ready` knows whether an item has come.

    The thread reads at most a few items ahead: a source that is faster than its reader waits.

    Args:
        items: the source; the thread reads it in order. Its exceptions are raised by ``next``.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._queue: Queue[T | BaseException] = Queue(_HELD)
        self._next: list[T | BaseException] = []  # at most one, taken from the queue and not yet returned
        self._closed = Event()
        # A daemon: a source that never ends must not keep the process alive.
        Thread(target=self._fill, name="deeplayer-rows", daemon=True).start()

    def __next__(self) -> T:
        """Wait for the next item, and return it."""
        while not self.wait(None):
            pass
        item = self._next[0]
        if isinstance(item, BaseException):  # the end, or an error: it stays, and is raised again
            raise item
        self._next.clear()
        return item

    def ready(self) -> bool:
        """Whether the next item, or the end, has come."""
        return self.wait(0)

    def wait(self, seconds: float | None) -> bool:
        """Wait for the next item or the end, at most ``seconds`` (None: for ever); return whether it has come."""
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
