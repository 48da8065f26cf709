"""Reads gold files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import BadRequest
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.schema import Id

logger = logging.getLogger("deeplayer")

_REFUSED = frozenset({"bad_json", "bad_row", "row_too_long", "bad_id", "bad_box"})
"""Errors of a row that leave its id or its box unknown."""


def read_gold(path: Path) -> dict[Id, Box]:
    """Read the gold boxes of a file of requests, by id; a row needs only an ``id`` and a ``box`` (or ``bbox``).

    A row without an id gets the id ``FOLDER/FILE:LINE``, as in `ground`. Rows without a box are left out, and a
    warning says how many.

    Raises:
        DeeplayerError: the file cannot be read, no row has a box, a row has an invalid id or box, or an id comes twice.
    """
    gold: dict[Id, Box] = {}
    n_without_box = 0
    for row in JsonLines(path).rows():
        if isinstance(row, BadRequest) and row.error.kind in _REFUSED:
            raise DeeplayerError(f"{path} is not a gold file: {row.error.message}")
        if row.gold is None:
            n_without_box += 1
            continue
        if row.id in gold:
            raise DeeplayerError(f"{path} is not a gold file: {row.where}: id {row.id!r} comes twice")
        gold[row.id] = row.gold
    if not gold:
        raise DeeplayerError(f"{path} is not a gold file: none of its {n_without_box} rows has a box")
    if n_without_box:
        logger.warning("%s: %d of %d rows have no box and are left out", path, n_without_box, n_without_box + len(gold))
    return gold
