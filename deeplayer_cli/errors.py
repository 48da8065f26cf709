"""The two ways a run can go wrong on purpose, and how that is shown."""

from __future__ import annotations


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
        super().__init__(message)
        self.kind = kind
        self.message = message


def printable(text: str) -> str:
    """Text as a terminal may show it: what would move the cursor, ring or recolour is written out as an escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
