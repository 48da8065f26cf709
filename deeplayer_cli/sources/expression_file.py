"""The text file beside an image: one expression a line. It may come from a stranger, so it is read within limits."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from deeplayer_cli.errors import RowError
from deeplayer_cli.schema import in_text

if TYPE_CHECKING:
    from pathlib import Path

EXPRESSION_SUFFIX = ".txt"

MAX_BYTES = 2**20
"""The largest file, in bytes."""

MAX_LINES = 1000
"""The most expressions about one image."""

_LINE_END = re.compile(r"\r\n?|\n")
_FRACTION = r"\s+(?:0?\.\d+|[01](?:\.0*)?|\d(?:\.\d+)?e-\d+)"
_YOLO = re.compile(rf"\d+(?:{_FRACTION}){{4,}}")


def read_expressions(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        RowError: ``no_expression``: there is no such file, it is not a regular file, too large, not UTF-8, empty, or
            holds YOLO labels.
    """
    name = in_text(path)
    try:
        text = _read_within_limits(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise RowError("no_expression", f"no expressions: {name} does not exist") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RowError("no_expression", f"{name}:{line} is not UTF-8: save the file in UTF-8") from error
    except OSError as error:
        raise RowError("no_expression", f"{name} cannot be read: {error.strerror or error}") from error
    lines = [line.strip() for line in _LINE_END.split(text) if line.strip()]
    if not lines:
        raise RowError("no_expression", f"no expressions: {name} is empty")
    if len(lines) > MAX_LINES:
        raise RowError("no_expression", f"{name} has {len(lines):,} lines; at most {MAX_LINES:,} expressions are read")
    if all(map(is_yolo_line, lines)):
        raise RowError("no_expression", f"{name} holds YOLO labels, not expressions: name what to find with -e")
    return lines


def is_yolo_line(line: str) -> bool:
    """Whether a line is a YOLO label: a class number, then at least four fractions of the image."""
    return _YOLO.fullmatch(line) is not None


def _read_within_limits(path: Path) -> bytes:
    """Read a regular file of at most `MAX_BYTES`; opening a pipe must not wait for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RowError("no_expression", f"{in_text(path)} is not a regular file")
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RowError("no_expression", f"{in_text(path)} is larger than {MAX_BYTES:,} bytes, the most that is read")
    return content
