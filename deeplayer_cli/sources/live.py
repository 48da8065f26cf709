"""Lines of a stream that may pause."""

from __future__ import annotations

import os
import select
from typing import IO

_CHUNK = 65536


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
            chunk = os.read(self._descriptor, _CHUNK)
            self._held += chunk
            self._ended = not chunk
        end = newline + 1 if newline >= 0 else min(limit, len(self._held))
        line = bytes(self._held[:end])
        del self._held[:end]
        return line

    def ready(self) -> bool:
        """Whether a line, or the end, is there; of one whose beginning has arrived, the rest is taken to be close."""
        return self._ended or b"\n" in self._held or bool(select.select([self._descriptor], [], [], 0)[0])
