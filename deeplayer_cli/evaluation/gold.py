"""Reads gold files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import BadRequest
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.schema import Id


def read_gold(path: Path) -> dict[Id, Box]:
    """Read the gold boxes of a file of requests, by id; a row needs only an ``id`` and a ``box`` (or ``bbox``).

    A row without an id gets the id ``FOLDER/FILE:LINE``, as in `ground`.

    Raises:
        DeeplayerError: the file cannot be read, a row has no valid box, or an id comes twice.
    """
    gold: dict[Id, Box] = {}
    for row in JsonLines(path).rows():
        if row.gold is None:
            reason = row.error.message if isinstance(row, BadRequest) else f"{row.where}: the row has no box"
            raise DeeplayerError(f"{path} is not a gold file: {reason}")
        if row.id in gold:
            raise DeeplayerError(f"{path} is not a gold file: {row.where}: id {row.id!r} comes twice")
        gold[row.id] = row.gold
    return gold
