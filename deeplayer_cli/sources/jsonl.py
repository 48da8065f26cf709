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
    """A JSONL file, or a pipe that has a name.

    Attributes:
        path: the file.
        name: what ids and messages call it; a row without an id is ``NAME:LINE``.
        image_root: the folder that relative image paths start from.
        confined: refuse images outside of ``image_root``.
    """

    path: Path
    name: str
    image_root: Path
    confined: bool = False

    def rows(self) -> Iterator[Request | BadRequest]:
        """Stream the file's rows; a pipe's as they arrive."""
        with reading(self.name), self.path.open("rb") as stream:
            for number, line in _rows_in(stream if self.repeatable else PipeLines(stream)):
                place = f"{self.name}:{number}"
                yield parse_request(line, place, place, self.image_root, confined=self.confined)

    @property
    def repeatable(self) -> bool:
        """Whether it is a file, not a pipe."""
        return self.path.is_file()


@dataclass(frozen=True, slots=True)
class Stdin:
    """JSON lines from stdin; a row without an id is called by its line number.

    Attributes:
        image_root: the folder that relative image paths start from.
        confined: refuse images outside of ``image_root``.
    """

    image_root: Path
    confined: bool = False

    def rows(self) -> Iterator[Request | BadRequest]:
        """Stream the rows as they arrive."""
        if sys.stdin is None:
            raise DeeplayerError("stdin is closed: pipe JSON lines into it, or name a file")
        with reading("stdin"):
            for number, line in _rows_in(PipeLines(sys.stdin.buffer)):
                yield parse_request(line, f"line {number}", str(number), self.image_root, confined=self.confined)

    @property
    def repeatable(self) -> bool:
        """Never: even where stdin is a file, it is read on from where it stands."""
        return False


class _Lines(Protocol):
    def readline(self, limit: int, /) -> bytes: ...


def _rows_in(lines: _Lines) -> Iterator[_Line]:
    """The lines that are not blank."""
    return (numbered for numbered in _numbered_lines(lines) if numbered[1].strip())


def _numbered_lines(stream: _Lines) -> Iterator[_Line]:
    """All lines, with their numbers from 1; of an over-long line only the beginning is held."""
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
