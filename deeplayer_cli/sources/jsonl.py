"""Requests as JSON lines, from a file or from stdin."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.schema import MAX_ROW_BYTES, BadRequest, Request, parse_request
from deeplayer_cli.sources.arriving import PipeLines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = len(_BOM) + MAX_ROW_BYTES + len(b"\r\n")

_Line = tuple[int, bytes]
"""A line's number and content."""


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A JSONL file, or a named pipe.

    Attributes:
        path: the file.
        name: its name in ids and messages; a row without an id gets the id ``NAME:LINE``.
        image_root: the folder that relative image paths start from.
        confined: refuse images outside of ``image_root``.
    """

    path: Path
    name: str
    image_root: Path
    confined: bool = False

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield the rows of the file; the rows of a pipe come as they arrive."""
        with reading(self.name), self.path.open("rb") as stream:
            for number, line in _rows_in(stream if self.repeatable else PipeLines(stream)):
                place = f"{self.name}:{number}"
                yield parse_request(line, place, place, self.image_root, confined=self.confined)

    @property
    def repeatable(self) -> bool:
        """Whether the rows can be read again: true for a file, false for a pipe."""
        return self.path.is_file()


@dataclass(frozen=True, slots=True)
class Stdin:
    """JSON lines from stdin; a row without an id gets its line number as id.

    Attributes:
        image_root: the folder that relative image paths start from.
        confined: refuse images outside of ``image_root``.
    """

    image_root: Path
    confined: bool = False

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield the rows as they arrive."""
        if sys.stdin is None:
            raise DeeplayerError("stdin is closed: pipe JSON lines into it, or name a file")
        with reading("stdin"):
            for number, line in _rows_in(PipeLines(sys.stdin.buffer)):
                yield parse_request(line, f"line {number}", str(number), self.image_root, confined=self.confined)

    @property
    def repeatable(self) -> bool:
        """Always false: even if stdin is a file, reading continues from the current position."""
        return False


class _Lines(Protocol):
    def readline(self, limit: int, /) -> bytes: ...


def _rows_in(lines: _Lines) -> Iterator[_Line]:
    """Return the lines that are not blank."""
    return (numbered for numbered in _numbered_lines(lines) if numbered[1].strip())


def _numbered_lines(stream: _Lines) -> Iterator[_Line]:
    """Yield all lines with their numbers from 1; only the beginning of a line that is too long."""
    for number in count(1):
        line = stream.readline(_LONGEST_LINE)
        if not line:
            return
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST_LINE)
        if number == 1:
            line = line.removeprefix(_BOM)
        yield number, line.rstrip(b"\r\n")
