"""Check that ids are unique: before any work if the rows can be read twice, row by row otherwise."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.schema import BadRequest
from deeplayer_cli.schema.row_ids import Ids, id_hash, repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from deeplayer_cli.schema import Id, Request


def count_rows(
    rows: Iterable[Request | BadRequest], wanted: Callable[[Request | BadRequest], bool] = lambda row: True
) -> tuple[int, int]:
    """Count all rows, and those for which ``wanted`` is true; this takes 8 bytes of memory per row.

    Args:
        rows: can be read again.
        wanted: called once for each row.

    Raises:
        DeeplayerError: an id occurs twice; the message names both places.
    """
    ids, n_wanted = array("Q"), 0
    for row in rows:
        ids.append(id_hash(row.id))
        n_wanted += wanted(row)
    suspects = repeated(np.sort(np.array(ids, np.uint64)))
    if suspects:
        _refuse_repeated(rows, suspects)
    return len(ids), n_wanted


def fail_repeated(rows: Iterable[Request | BadRequest]) -> Iterator[Request | BadRequest]:
    """Pass rows on as they come; a row whose id occurred before becomes a bad row with its place as id."""
    seen = Ids()
    for row in rows:
        if seen.add(row.id):
            yield row
        else:
            error = RowError("duplicate_id", f"{row.where}: id {row.id!r} occurred before: ids must be unique")
            yield replace(BadRequest.from_row(row, error), id=row.where)


def _refuse_repeated(rows: Iterable[Request | BadRequest], suspects: set[int]) -> None:
    first: dict[Id, str] = {}
    for row in rows:
        if id_hash(row.id) in suspects:
            if row.id in first:
                raise DeeplayerError(f"id {row.id!r} comes twice, at {first[row.id]} and {row.where}: make ids unique")
            first[row.id] = row.where
