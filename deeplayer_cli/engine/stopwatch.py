"""A stopwatch that measures the time of each phase."""

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
    """Measures seconds by phase. A phase inside another phase counts only for itself.

    Args:
        device: the device to wait for at every change of phase, so that a GPU's work counts for the phase that started
            it. Waiting costs some speed. None: do not wait; then only the CPU's time is split correctly.

    Attributes:
        seconds: seconds of each phase so far, by name.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._running: list[str] = []
        self._since = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Count the time inside the context for ``phase``."""
        self._change()
        self._running.append(phase)
        try:
            yield
        finally:
            self._change()
            self._running.pop()

    def _change(self) -> None:
        if self._device is not None:
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._running:
            phase = self._running[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


def phase(name: str) -> Callable[[_Method], _Method]:
    """Decorate a method so that its time counts as phase ``name`` of ``self.watch``."""

    def decorate(method: _Method) -> _Method:
        @wraps(method)
        def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.watch.timing(name):
                return method(self, *args, **kwargs)

        return cast("_Method", timed)

    return decorate
