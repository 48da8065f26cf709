"""Large JSON documents, an item at a time."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from deeplayer_cli.errors import DeeplayerError, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_ITEM_CHARACTERS = 2**26
"""The longest item of a document, in characters: an item is held in memory as a whole."""

_CHUNK = 2**16
_BEHIND = tuple(" \t\r\n,:]}")
"""The characters that may follow a value."""

_DECODER = json.JSONDecoder()


def array_items(path: Path) -> Iterator[Any]:
    """Yield the items of a document that is an array.

    Raises:
        DeeplayerError: the file cannot be read, or is not such a document.
    """
    with _document(path) as text:
        yield from text.items()


def object_members(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the members of a document that is an object; one that holds an array is yielded for each item.

    Raises:
        DeeplayerError: the file cannot be read, or is not such a document.
    """
    with _document(path) as text:
        for name in text.names():
            if text.peek() == "[":
                for item in text.items():
                    yield name, item
            else:
                yield name, text.value()


@contextmanager
def _document(path: Path) -> Iterator[_JsonText]:
    with reading(str(path)), path.open(encoding="utf-8-sig") as stream:
        try:
            yield _JsonText(stream)
        except (ValueError, RecursionError) as error:  # also what is not UTF-8
            raise DeeplayerError(f"{path} is not JSON: {error}") from error


class _JsonText:
    """The text of a document, of which only the part that is being read is held."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._ended = False

    def items(self) -> Iterator[Any]:
        """Yield the items of the array that begins here."""
        self._take("[")
        while self.peek() != "]":
            yield self.value()
            self._separator("]")
        self._take("]")

    def names(self) -> Iterator[str]:
        """Yield the names of the object that begins here; whoever gets one reads its value."""
        self._take("{")
        while self.peek() != "}":
            name = self.value()
            self._take(":")
            yield str(name)
            self._separator("}")
        self._take("}")

    def peek(self) -> str:
        """Return the next character that is no white space, and go there; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def value(self) -> Any:
        """Return the value that begins here."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if self._ended:
                    raise
            else:
                if self._ended or self._text[end : end + 1] in _BEHIND:  # otherwise a number may go on
                    self._at = end
                    return value
            self._read_on()

    def _separator(self, end: str) -> None:
        if self.peek() != end:
            self._take(",")

    def _take(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError(f"there is {self.peek()!r} in the place of {character!r}")
        self._at += 1

    def _read_on(self) -> None:
        """Read as much again as is waiting, so that a long value takes few attempts."""
        rest = self._text[self._at :]
        if len(rest) > MAX_ITEM_CHARACTERS:
            raise ValueError(f"it has an item of more than {MAX_ITEM_CHARACTERS:,} characters")
        more = self._stream.read(max(_CHUNK, len(rest)))
        self._text, self._at, self._ended = rest + more, 0, not more
