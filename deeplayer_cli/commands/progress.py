"""The progress bar of a run, on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from types import TracebackType

    from deeplayer_cli.runtime.run import RunProgress

_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt}, {remaining} left{postfix}"
"""Leaves a third of 80 columns to the bar."""


class ProgressBar:
    """A bar over rows, drawn on stderr only if that is a terminal.

    Args:
        hidden: draw nothing.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self._bar: tqdm | None = None
        self._disabled = hidden or not sys.stderr.isatty()

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
            self._bar = tqdm(
                total=progress.n_left,
                unit="row",
                file=sys.stderr,
                disable=self._disabled,
                leave=False,
                dynamic_ncols=True,
                bar_format=None if progress.n_left is None else _FORMAT,
            )
            return
        errors = f", {counted(totals.errors, 'error')}" if totals.errors else ""
        self._bar.set_postfix_str(f"{totals.accuracy}{errors}", refresh=False)
        self._bar.update()
