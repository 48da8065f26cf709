"""Open the output of a run."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks.descriptors import named_descriptor
from deeplayer_cli.sinks.prediction_file import PredictionFile, ResumeMode
from deeplayer_cli.sinks.stream import Stream, stream_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.sinks.run_record import RunRecord
    from deeplayer_cli.sinks.sink import Sink


def open_sink(path: Path | None, record: RunRecord, mode: ResumeMode = ResumeMode.NEW) -> Sink:
    """Open the output of a run: a file that can be resumed, or a stream for stdout (None or ``-``), pipes and devices.

    Raises:
        DeeplayerError: see `PredictionFile` and `Stream`; or ``mode`` resumes a stream.
    """
    if path is not None and named_descriptor(path, dash=1) is None:
        if not path.parent.is_dir():
            raise DeeplayerError(f"{path} cannot be written: there is no folder {path.parent}")
        if path.is_dir():
            raise DeeplayerError(f"{path} is a folder: name a file in it")
        if path.is_file() or not path.exists():
            return PredictionFile(path, record, mode)
    if mode in (ResumeMode.RESUME, ResumeMode.RETRY):
        raise DeeplayerError(f"{stream_name(path)} cannot be resumed: name a file with -o")
    return Stream(path)


def refuse_twice(paths: Iterable[Path]) -> None:
    """Refuse a file that is named twice, also by two paths: its rows would count twice.

    Raises:
        DeeplayerError: the message names the second path.
    """
    seen: set[str] = set()
    for path in paths:
        if (real := os.path.realpath(path)) in seen:
            raise DeeplayerError(f"{path} is given twice: name it once")
        seen.add(real)


def refuse_same_file(output: Path | None, sources: Iterable[str]) -> None:
    """Refuse an output that is one of the inputs, or that the next run would read as one.

    Raises:
        DeeplayerError: the output is a source, or a ``.jsonl`` file directly in a folder that is a source.
    """
    written = _status(sys.__stdout__ if output is None or str(output) == "-" else output)
    for source in sources:
        read = _status(sys.__stdin__ if source == "-" else Path(source))
        if written and read and stat.S_ISREG(read.st_mode) and os.path.samestat(written, read):
            raise DeeplayerError(f"{output or 'stdout'} is also an input: write to another file")
        if (
            output is not None
            and output.suffix == ".jsonl"
            and Path(os.path.realpath(output)).parent == Path(os.path.realpath(source))
        ):
            raise DeeplayerError(f"{output} would be an input of the next run on {source}: write to another folder")


def _status(file: TextIO | Path | None) -> os.stat_result | None:
    """Return the status of a path or a standard stream; None if it is not a file."""
    try:
        if isinstance(file, Path):
            return file.stat()
        return os.fstat(file.fileno()) if file is not None else None
    except (OSError, ValueError):  # missing, or a stream that is closed or no file at all
        return None
