"""Ctrl-C and SIGTERM: the first asks a run to end in good order, the second ends it."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """Whether the run was asked to end.

    Attributes:
        signal: the number of the signal that asked, if any.
    """

    signal: int | None = None

    @property
    def requested(self) -> bool:
        """Whether one came."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell calls a process that this signal ended: 130 or 143."""
        return 128 + (self.signal or 0)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside, the first signal is noted in the `Stop`; after it, signals do again what they did outside."""
    stop = Stop()

    def note(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_DFL)  # ends the process even in the middle of a forward pass
        print("deeplayer: finishing the batch; once more to stop at once", file=sys.stderr)  # noqa: T201

    before = {one: signal.signal(one, note) for one in _SIGNALS}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
