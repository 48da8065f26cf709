"""Ctrl-C and SIGTERM: after the first signal, a run finishes its batch and ends; the second ends it at once.

While the model is loading, the first signal ends the run.
"""

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
    """Whether a signal has requested the end of a run.

    Attributes:
        signal: the number of that signal; None if none has come.
        is_loading: whether the model is loading.
    """

    signal: int | None = None
    is_loading: bool = False

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code of a process that this signal ended, as shells report it: 130 or 143."""
        return 128 + (self.signal or 0)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Inside, the first signal ends the process, for no row is in work yet."""
        self.is_loading = True
        try:
            yield
        finally:
            self.is_loading = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Yield a `Stop` that records the first signal; a second one ends the process. At the end, restore the handlers.

    A signal that the process ignores, as a background job or one under ``nohup`` does, stays ignored.
    """
    stop = Stop()
    watched = [one for one in _SIGNALS if signal.getsignal(one) != signal.SIG_IGN]

    def note(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        for one in watched:
            signal.signal(one, signal.SIG_DFL)  # ends the process even in the middle of a forward pass
        if stop.is_loading:
            print("deeplayer: stopped while the model was loading", file=sys.stderr)  # noqa: T201
            raise SystemExit(stop.exit_code)
        print("deeplayer: finishing the batch; a second signal stops at once", file=sys.stderr)  # noqa: T201

    def end_at_once(event: sys.UnraisableHookArgs) -> None:
        """A second signal that came before `note` was through reaches no handler: Python only reports it here."""
        if stop.requested and str(event.exc_value).endswith("ignored due to race condition"):
            signal.raise_signal(stop.signal or signal.SIGTERM)
        report(event)

    report, sys.unraisablehook = sys.unraisablehook, end_at_once
    before = {one: signal.signal(one, note) for one in watched}
    try:
        yield stop
    finally:
        sys.unraisablehook = report
        for one, handler in before.items():
            signal.signal(one, handler)
