"""Reading prediction files."""

from __future__ import annotations

import codecs
import logging
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.schema import Prediction
from deeplayer_cli.schema.values import json_fault
from deeplayer_cli.sinks.descriptors import named_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_LINE = 2**26
"""Bytes; a row of a run is far shorter, so that a longer line is that of another file."""

logger = logging.getLogger("deeplayer")


def read_predictions(path: Path, *, quiet: bool = False) -> Iterator[Prediction]:
    """Stream the rows of a prediction file; a byte order mark at its start is skipped.

    A last line that was cut off in the middle, as a killed run leaves it, is left out.

    Args:
        path: the file; ``-`` is stdin.
        quiet: do not log a warning about a line that is left out.

    Raises:
        DeeplayerError: the file cannot be read, or a line is not a prediction; the message names file and line.
    """
    return (row for _, row in read_lines(path, quiet=quiet))


def read_lines(path: Path, *, quiet: bool = False) -> Iterator[tuple[bytes, Prediction]]:
    """Stream the rows of a prediction file with their lines as they are written; see `read_predictions`."""
    descriptor = named_descriptor(path, dash=0)
    name = "stdin" if descriptor == 0 else str(path)
    file = path if descriptor is None else descriptor
    with reading(name), open(file, "rb", closefd=descriptor is None) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise DeeplayerError(f"{name}:{number} is not a prediction: it is longer than {LONGEST_LINE:,} bytes")
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not content.strip():
                continue
            try:
                yield content, Prediction.from_json(content)
            except ValueError as error:
                if not line.endswith(b"\n") and _is_torn(content):
                    if not quiet:
                        logger.warning("%s:%d is a torn line, as a killed run leaves it; it is left out", name, number)
                    return
                raise DeeplayerError(f"{name}:{number} is not a prediction: {json_fault(line, error)}") from error


def _is_torn(line: bytes) -> bool:
    """Whether a line is the beginning of an object, but no JSON: a whole row of another kind is not torn."""
    try:
        orjson.loads(line)
    except ValueError:
        return line.lstrip().startswith(b"{")
    return False
