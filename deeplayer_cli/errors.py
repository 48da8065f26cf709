"""The two ways a run can go wrong on purpose, and how that is shown."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        super().__init__(kind, message)  # both, so that a pickled error comes back whole
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        """The sentence alone."""
        return self.message


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what the system refuses while reading ``name`` into a `DeeplayerError`."""
    try:
        yield
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be read: {error.strerror or error}") from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn what the system refuses while writing ``name`` into a `DeeplayerError`."""
    try:
        yield
    except BrokenPipeError:
        raise  # no failure of this run: the reader has left
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be written: {error.strerror or error}") from error


def printable(text: str) -> str:
    """Text as a terminal may show it: what would move the cursor, ring or recolour is written out as an escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
