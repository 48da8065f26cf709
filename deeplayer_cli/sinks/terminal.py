"""Rows for a person at a terminal: one short line each, under one heading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.errors import printable
from deeplayer_cli.sinks.stream import Stream

if TYPE_CHECKING:
    from deeplayer_cli.schema import Prediction

_ID, _BOX = 24, 27  # characters
_HEADING = f"{'id':<{_ID}} {'box':<{_BOX}} {'score':>5} {'IoU':>5} expression"


class TerminalTable(Stream):
    """Writes predictions to stdout as the lines of a table.

    Args:
        width: of the terminal, in characters.
    """

    def __init__(self, width: int) -> None:
        super().__init__(None)
        self._width, self._started = width, False

    def encode(self, prediction: Prediction) -> bytes:
        """Return a prediction as one line that fits the terminal; the first with the heading."""
        heading = "" if self._started else f"{_HEADING}\n"
        self._started = True
        return f"{heading}{_line(prediction)[: self._width]}\n".encode()


def _line(row: Prediction) -> str:
    name = printable(str(row.id))
    name = name if len(name) <= _ID else f"...{name[3 - _ID :]}"  # the end of an id tells rows apart
    if row.error is not None:
        return f"{name:<{_ID}} {row.error['type']}: {printable(row.error['message'])}"
    box = "no box" if row.box is None else " ".join(f"{number:.1f}" for number in row.box)
    score, iou = ("" if number is None else f"{number:.2f}" for number in (row.score, row.iou))
    return f"{name:<{_ID}} {box:<{_BOX}} {score:>5} {iou:>5} {printable(row.expression or '')}"
