"""Predictions into what cannot be continued: stdout, a pipe, a device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

from deeplayer_cli.errors import DeeplayerError, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from deeplayer_cli.schema import BadRequest, Id, Prediction, Request


class Stream:
    """Writes whole lines; each is handed to the system before `write` returns.

    Args:
        path: of a pipe or device, or None for stdout.

    Raises:
        DeeplayerError: the system refuses, or stdout is closed.
    """

    def __init__(self, path: Path | None) -> None:
        self.name = "stdout" if path is None else str(path)
        if path is None and sys.stdout is None:
            raise DeeplayerError("stdout is closed: write to a file with -o")
        with writing(self.name):
            # Unbuffered, so that after a failure nothing is left that closing would try to write once more.
            self._stream: BinaryIO = sys.stdout.buffer if path is None else path.open("wb", buffering=0)
        self._owns_stream = path is not None

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_stream:
            with writing(self.name):
                self._stream.close()

    @property
    def path(self) -> None:
        """None: no later run can continue it."""
        return None

    def predictions(self) -> None:
        """None: what was written is gone."""
        return

    def finish(self, counts: Mapping[str, int], profile: Mapping[str, object] | None = None) -> None:
        """Do nothing: a stream has no record."""

    def unanswered(self, row: Request | BadRequest) -> bool:
        """Always: what went down a pipe is gone."""
        return True

    def lacks(self, row_id: Id) -> bool:
        """Always: what went down a pipe is gone."""
        return True

    def write(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            DeeplayerError: the system refuses.
            BrokenPipeError: whoever read it is gone.
        """
        rest = memoryview(prediction.to_json())
        with writing(self.name):
            while rest:
                rest = rest[self._stream.write(rest) :]
            self._stream.flush()
