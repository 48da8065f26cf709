"""Predictions as JSON lines, to a file or to stdout."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType


class JsonlWriter:
    """Writes whole lines; each is handed to the system before `write` returns.

    Args:
        path: the file, or None for stdout.
        overwrite: replace a file that holds something.

    Raises:
        DeeplayerError: the file holds something, or the system refuses to open or write it.

    Example:
        >>> with JsonlWriter(Path("boxes.jsonl")) as writer:
        ...     writer.write(prediction.to_json())
    """

    def __init__(self, path: Path | None, *, overwrite: bool = False) -> None:
        self.name = "stdout" if path is None else str(path)
        refuse_occupied(path, overwrite=overwrite)
        with _writing(self.name):
            # Unbuffered, so that after a failure nothing is left that closing would try to write once more.
            if path is None and sys.stdout is None:
                raise DeeplayerError("stdout is closed: write to a file with -o")
            self._stream: BinaryIO = sys.stdout.buffer if path is None else path.open("wb", buffering=0)
        self._owns_stream = path is not None

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_stream:
            with _writing(self.name):
                self._stream.close()

    def write(self, lines: bytes) -> None:
        """Write one or more lines, each ending with a newline.

        Raises:
            DeeplayerError: the system refuses, for example because the disk is full.
            BrokenPipeError: whoever read stdout is gone.
        """
        with _writing(self.name):
            rest = memoryview(lines)
            while rest:
                rest = rest[self._stream.write(rest) :]
            self._stream.flush()


def refuse_occupied(path: Path | None, *, overwrite: bool) -> None:
    """Refuse a file that holds something, unless it may be replaced; nothing is touched yet.

    Raises:
        DeeplayerError: the file is not empty, or cannot be looked at.
    """
    with _writing(str(path)):
        if path is None:
            return
        if not path.parent.is_dir():
            raise DeeplayerError(f"{path} cannot be written: there is no folder {path.parent}")
        if path.is_dir():
            raise DeeplayerError(f"{path} is a folder: name a file in it")
        if not overwrite and path.is_file() and path.stat().st_size > 0:
            raise DeeplayerError(f"{path} is not empty: --overwrite replaces it, or write to another file")


def refuse_same_file(output: Path | None, sources: Iterable[str]) -> None:
    """Refuse an output that is one of the inputs, or that the next run would take for one.

    Raises:
        DeeplayerError: the output is a source, or a ``.jsonl`` file directly in a folder that is a source.
    """
    written = _status(sys.__stdout__ if output is None else output)
    for source in sources:
        read = _status(sys.__stdin__ if source == "-" else Path(source))
        if written and read and stat.S_ISREG(read.st_mode) and os.path.samestat(written, read):
            raise DeeplayerError(f"{output or 'stdout'} is an input as well: write to another file")
        if output is not None and output.suffix == ".jsonl" and output.resolve().parent == Path(source).resolve():
            raise DeeplayerError(f"{output} would be an input of the next run on {source}: write to another folder")


def _status(file: TextIO | Path | None) -> os.stat_result | None:
    """What the system says about a path or a standard stream, if there is such a file."""
    try:
        if isinstance(file, Path):
            return file.stat()
        return os.fstat(file.fileno()) if file is not None else None
    except (OSError, ValueError):  # missing, or a stream that is closed or no file at all
        return None


@contextmanager
def _writing(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # no failure of this run: the reader has seen enough
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be written: {error.strerror or error}") from error
