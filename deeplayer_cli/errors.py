"""The two kinds of expected errors: one ends the run, the other fails one row."""

from __future__ import annotations

from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class DeeplayerError(Exception):
    """The run cannot go on: wrong usage, configuration, checkpoint or I/O.

    The message is one sentence that names the value, the place and the way out. The command line prints it and exits 2.
    """


class RowError(Exception):
    """One request cannot be answered; the run goes on and the row is written with ``status: "error"``.

    Args:
        kind: a stable machine-readable name, such as ``"image_missing"``.
        message: one sentence for a person.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)  # both, so that the error can be pickled
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        """Return the message without the kind."""
        return self.message


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block that reads ``name`` into a `DeeplayerError`."""
    try:
        yield
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be read: {error.strerror or error}") from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block that writes ``name`` into a `DeeplayerError`, but not a ``BrokenPipeError``."""
    try:
        yield
    except BrokenPipeError:
        raise  # not an error of this run: the reader closed the pipe
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be written: {error.strerror or error}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses a name: the nearest of the ``known`` ones, or nothing if none is near."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(known: Iterable[object]) -> str:
    """Names to choose from, for a sentence: ``each, union or off``."""
    *others, last = map(str, known)
    return f"{', '.join(others)} or {last}" if others else last


def not_one_of(name: str, value: object, known: Iterable[object]) -> str:
    """The sentence that refuses a value: ``--share must be each, union or off, not 'of'; did you mean 'off'?``."""
    names = [str(one) for one in known]
    return f"{name} must be {listed(names)}, not {value!r}{did_you_mean(str(value), names)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def root_cause(error: BaseException) -> str:
    """Type and first line of the error that others hide: transformers' of an import, the hub's of a connection."""
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


def printable(text: str) -> str:
    """Return text that is safe for a terminal: every character that is not printable becomes an escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
