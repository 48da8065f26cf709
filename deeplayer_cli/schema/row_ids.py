"""Sets of known rows, in at most 24 bytes per row: a file may contain millions of rows."""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.schema import BadRequest, Id, Prediction, Request

_FIELDS = np.dtype([("id", np.uint64), ("question", np.uint64), ("details", np.uint64)])


def id_hash(row_id: Id) -> int:
    """Return a 64-bit hash of an id: among a million ids, the chance that any two collide is one in 30 million."""
    return _hash(orjson.dumps(row_id))


def question_hash(row: Request | BadRequest | Prediction) -> int:
    """Return a 64-bit hash of a row's image and expression."""
    return _hash(orjson.dumps([row.image, row.expression]))


def details_hash(row: Request | BadRequest | Prediction) -> int:
    """Return a 64-bit hash of what a row carries along: its gold box and its other fields."""
    return _hash(orjson.dumps([row.gold, row.meta], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))


class Ids:
    """A growing set of ids, for input that can be read only once."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._fresh: set[int] = set()

    def add(self, row_id: Id) -> bool:
        """Add an id, and return whether it is new."""
        if row_id in self:
            return False
        self._fresh.add(id_hash(row_id))
        if len(self._fresh) > max(1024, len(self._sorted) // 32):  # few enough that the set's own overhead is small
            fresh = np.fromiter(self._fresh, np.uint64, len(self._fresh))
            self._sorted = np.sort(np.concatenate((self._sorted, fresh)))
            self._fresh.clear()
        return True

    def __contains__(self, row_id: Id) -> bool:
        key = id_hash(row_id)
        return key in self._fresh or _position(self._sorted, key) is not None


class AnsweredIndex:
    """An index of the rows of a file: hashes of id, question and details, and which rows are ``error`` rows.

    Args:
        rows: the rows of the file. Their ids should be unique; see `repeated`.
    """

    def __init__(self, rows: Iterable[Prediction] = ()) -> None:
        packed, self._errors = array("Q"), set[int]()
        for row in rows:
            key = id_hash(row.id)
            packed.extend((key, question_hash(row), details_hash(row)))
            if row.status == "error":
                self._errors.add(key)
        table = np.array(packed, np.uint64).view(_FIELDS)
        del packed
        table.sort(order="id")
        self._ids, self._questions, self._details = (
            np.ascontiguousarray(table[name]) for name in ("id", "question", "details")
        )

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def n_errors(self) -> int:
        """The number of ``error`` rows."""
        return len(self._errors)

    def question(self, row_id: Id) -> int | None:
        """Return the `question_hash` of the row with this id, or None without such a row."""
        return self._at(self._questions, row_id)

    def details(self, row_id: Id) -> int | None:
        """Return the `details_hash` of the row with this id, or None without such a row."""
        return self._at(self._details, row_id)

    def _at(self, values: np.ndarray, row_id: Id) -> int | None:
        found = _position(self._ids, id_hash(row_id))
        return None if found is None else int(values[found])

    def failed(self, row_id: Id) -> bool:
        """Whether the row with this id is an ``error`` row."""
        return id_hash(row_id) in self._errors

    def repeated(self) -> set[int]:
        """Return the `id_hash` of every id that occurs more than once."""
        return repeated(self._ids)


def repeated(ids: np.ndarray) -> set[int]:
    """Return the values that occur more than once in a sorted array of integers."""
    return {int(key) for key in ids[1:][ids[1:] == ids[:-1]]}


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _position(ids: np.ndarray, key: int) -> int | None:
    place = int(np.searchsorted(ids, np.uint64(key)))
    return place if place < len(ids) and int(ids[place]) == key else None
