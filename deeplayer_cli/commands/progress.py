"""The progress bar of a run, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from types import TracebackType

    from deeplayer_cli.runtime.run import RunProgress


class ProgressBar:
    """A bar over rows, drawn on stderr only if that is a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._started = time.perf_counter()
        self._images = 0
        self._last_image: str | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: RunProgress) -> None:
        """Draw the progress of a run; the first call starts the bar."""
        totals, prediction = progress.totals, progress.prediction
        if self._bar is None or prediction is None:
            self._started = time.perf_counter()
            self._bar = tqdm(
                total=progress.n_left, unit="row", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False
            )
            return
        self._images += prediction.image != self._last_image
        self._last_image = prediction.image
        images_per_second = self._images / (time.perf_counter() - self._started)
        self._bar.set_postfix_str(
            f"{images_per_second:.1f} images/s, {totals.errors} errors, {totals.accuracy}", refresh=False
        )
        self._bar.update()
