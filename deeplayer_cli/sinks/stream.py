"""Output that cannot be resumed: stdout, a pipe or a device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.sinks.descriptors import named_descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from deeplayer_cli.schema import BadRequest, Id, Prediction, Request


def stream_name(path: Path | None) -> str:
    """Return what messages call an output: ``stdout`` for all of its names, else the path."""
    return "stdout" if path is None or named_descriptor(path, dash=1) == 1 else str(path)


class Stream:
    """Writes whole lines; each is handed to the system before `write` returns.

    Args:
        path: of a pipe, a device or an open descriptor; None or ``-`` for stdout.

    Raises:
        DeeplayerError: the path cannot be opened, or stdout is closed.
    """

    def __init__(self, path: Path | None) -> None:
        descriptor = 1 if path is None else named_descriptor(path, dash=1)
        self.name = stream_name(path)
        self._owns_stream = descriptor is None
        if descriptor == 1 and sys.stdout is None:
            raise DeeplayerError("stdout is closed: write to a file with -o")
        with writing(self.name):
            self._stream: BinaryIO
            if path is None or descriptor == 1:
                self._stream = sys.stdout.buffer
            else:  # unbuffered: after a failure, closing must not try to write the rest of a buffer
                file = path if descriptor is None else descriptor
                self._stream = open(file, "wb", buffering=0, closefd=descriptor is None)  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_stream:
            with writing(self.name):
                self._stream.close()

    @property
    def path(self) -> None:
        """Always None: no later run can continue a stream."""
        return None

    def predictions(self) -> None:
        """Return None: a stream cannot be read again."""
        return

    def outdated(self, row: Request | BadRequest) -> bool:
        """False: nothing is known of what was written."""
        return False

    def finish(
        self,
        counts: Mapping[str, int],
        profile: Mapping[str, object] | None = None,
        part: Mapping[str, object] | None = None,
    ) -> None:
        """Do nothing: a stream has no record."""

    def unanswered(self, row: Request | BadRequest) -> bool:
        """Always true: a stream has no earlier rows."""
        return True

    def lacks(self, row_id: Id) -> bool:
        """Always true: a stream has no earlier rows."""
        return True

    def encode(self, prediction: Prediction) -> bytes:
        """Return what stands for a prediction: a line of JSON."""
        return prediction.to_json()

    def write(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            DeeplayerError: writing fails.
            BrokenPipeError: the reader has closed the pipe.
        """
        rest = memoryview(self.encode(prediction))
        with writing(self.name):
            while rest:
                rest = rest[self._stream.write(rest) :]
            self._stream.flush()
