"""Requests as JSON lines, from a file or from stdin."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.schema import MAX_ROW_BYTES, BadRequest, GoldReader, Request, parse_request
from deeplayer_cli.sinks.descriptors import is_descriptor
from deeplayer_cli.sources.arriving import PipeLines
from deeplayer_cli.sources.box_format import watched
from deeplayer_cli.sources.files import file_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = len(_BOM) + MAX_ROW_BYTES + len(b"\r\n")

_Line = tuple[int, bytes]
"""A line's number and content."""


SUFFIXES = frozenset({".jsonl", ".ndjson"})

_IN_PIXELS = GoldReader()


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A JSONL file, a named pipe, or an open descriptor such as ``/dev/stdin``.

    A row without an id gets the id ``FOLDER/FILE:LINE``.

    Attributes:
        path: the file.
        image_root: the folder that relative image paths start from; None for the file's own folder, or for the working
            directory if ``path`` is a descriptor.
        confined: refuse images outside of that folder.
        gold_reader: reads the gold boxes.
    """

    path: Path
    image_root: Path | None = None
    confined: bool = False
    gold_reader: GoldReader = _IN_PIXELS

    @property
    def name(self) -> str:
        """The name of the file in ids and messages."""
        return file_name(self.path)

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield the rows of the file; the rows of a pipe come as they arrive.

        Raises:
            DeeplayerError: the file cannot be read, or the gold boxes of a pipe are not what they are read as.
        """
        rows = self._rows()
        return (
            rows
            if self.repeatable or self.gold_reader.box_format
            else watched(rows, self.name, self.gold_reader.size_of)
        )

    def _rows(self) -> Iterator[Request | BadRequest]:
        name, root, hint = self.name, self.image_root, ""
        if root is None:
            root, hint = (Path(), _from_here(name)) if is_descriptor(self.path) else (self.path.parent, "")
        with reading(name), self.path.open("rb") as stream:
            for number, line in _rows_in(stream if self.repeatable else PipeLines(stream)):
                place = f"{name}:{number}"
                yield parse_request(
                    line, place, place, root, confined=self.confined, hint=hint, gold_reader=self.gold_reader
                )

    @property
    def repeatable(self) -> bool:
        """Whether the rows can be read again: true for a file, false for a pipe or a descriptor."""
        return self.path.is_file() and not is_descriptor(self.path)


@dataclass(frozen=True, slots=True)
class Stdin:
    """JSON lines from stdin; a row without an id gets its line number as id.

    Attributes:
        image_root: the folder that relative image paths start from; None for the working directory.
        confined: refuse images outside of that folder.
        gold_reader: reads the gold boxes.
    """

    image_root: Path | None = None
    confined: bool = False
    gold_reader: GoldReader = _IN_PIXELS

    @property
    def name(self) -> str:
        """The name in messages."""
        return "stdin"

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield the rows as they arrive.

        Raises:
            DeeplayerError: stdin is closed, or the gold boxes are not what they are read as.
        """
        return (
            self._rows() if self.gold_reader.box_format else watched(self._rows(), self.name, self.gold_reader.size_of)
        )

    def _rows(self) -> Iterator[Request | BadRequest]:
        if sys.stdin is None:
            raise DeeplayerError("stdin is closed: pipe JSON lines into it, or name a file")
        root, hint = (Path(), _from_here(self.name)) if self.image_root is None else (self.image_root, "")
        with reading(self.name):
            for number, line in _rows_in(PipeLines(sys.stdin.buffer)):
                place = f"{self.name}:{number}"
                yield parse_request(
                    line, place, str(number), root, confined=self.confined, hint=hint, gold_reader=self.gold_reader
                )

    @property
    def repeatable(self) -> bool:
        """Always false: even if stdin is a file, reading continues from the current position."""
        return False


def _from_here(name: str) -> str:
    return f"relative paths of {name} start from the working directory: --image-root FOLDER changes that"


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
