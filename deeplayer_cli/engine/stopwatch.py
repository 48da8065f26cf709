"""Where the time goes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Method = TypeVar("_Method", bound="Callable[..., Any]")


class Stopwatch:
    """Seconds by phase; what runs inside a phase under a name of its own does not count twice.

    Args:
        device: waited for at every change of phase, so that a GPU's work counts where it was asked for; that costs some
            speed. None for not waiting: then only what the CPU did is told apart.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._is_cuda = device is not None and device.type == "cuda"
        self._running: list[str] = []
        self._since = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Count what runs inside as ``phase``."""
        self._change()
        self._running.append(phase)
        try:
            yield
        finally:
            self._change()
            self._running.pop()

    def _change(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._running:
            phase = self._running[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


def phase(name: str) -> Callable[[_Method], _Method]:
    """Make a method count as a phase of its object's stopwatch, ``self.watch``."""

    def decorate(method: _Method) -> _Method:
        @wraps(method)
        def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.watch.timing(name):
                return method(self, *args, **kwargs)

        return cast("_Method", timed)

    return decorate
