"""Groups of rows that share keys and values: rows about one image attend to one copy of its prefix.

A group is one row of a kv cache. Its suffix slots are interleaved: the first slots of all its rows come first. The
queries of its rows are packed along the token dimension, so one call of attention reads the shared keys once.

An example: rows 0 and 2 are about image 0, row 1 is about image 1, and suffixes have two tokens. ``r2t1`` is token 1
of row 2. The size of a group is 2. Token t of a row goes to suffix slot ``t * size + number`` of its group:

    row 0: group 0, number 0, column 0
    row 1: group 1, number 0, column 0
    row 2: group 0, number 1, column 1

    group 0: members 0 2, slots | prefix of image 0 | r0t0 | r2t0 | r0t1 | r2t1 |
    group 1: members 1 1, slots | prefix of image 1 | r1t0 |      | r1t1 |      |

Group 1 has an empty place; its second member only fills the shape, and `unpack` leaves it out. What each packed token
attends to, besides the prefix (x) or not (.):

    group 0: r0t0 x . . .
    group 0: r0t1 x . x .
    group 0: r2t0 . x . .
    group 0: r2t1 . x . x
    group 1: r1t0 x . . .
    group 1: r1t1 x . x .

A column is where a row's queries are among those of its group. It is its number until rows leave: then the places of
those that stay do not change, because keys lie there, but their queries are packed without gaps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from deeplayer_cli.device.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

_LARGEST = 8  # rows of a group: each of them also scores the slots of the others, which it does not attend to
_EMPTY = 0.25  # of the places, at most; a smaller group of another image leaves places empty


class Place(NamedTuple):
    """Where a row lies: in which group, and at which of the group's places."""

    group: int
    number: int


@dataclass(frozen=True)
class RowGroups:
    """G groups of B rows, up to ``size`` in each.

    Attributes:
        places: the place of each row.
        size: number of places of a group.
        of_row: (3, B) int64, for each row its group, its place, and its column in ``members``.
        members: (G, M) int64, rows of each group, padded with rows that are there already; None if every row is alone
            and row i is group i.
    """

    places: Sequence[Place]
    size: int
    of_row: Tensor
    members: Tensor | None

    @classmethod
    def alone(cls, n_rows: int, device: torch.device) -> RowGroups:
        """Every row is a group of its own."""
        return cls.from_places([Place(row, 0) for row in range(n_rows)], 1, device)

    @classmethod
    def by_image(cls, images: Sequence[int], device: torch.device) -> RowGroups:
        """Rows about one image share a group, up to 8 of them; groups are in the order of their images."""
        size = _group_size(Counter(images).values())
        members = _split(images, size)
        places = {row: Place(group, number) for group, rows in enumerate(members) for number, row in enumerate(rows)}
        return cls.from_places([places[row] for row in range(len(images))], size, device)

    @classmethod
    def from_places(cls, places: Sequence[Place], size: int, device: torch.device) -> RowGroups:
        """The groups of rows that lie at ``places``; all groups up to the last have a row."""
        members: list[list[int]] = [[] for _ in range(1 + max(place.group for place in places))]
        columns = []
        for row, place in enumerate(places):
            columns.append(len(members[place.group]))
            members[place.group].append(row)
        width = max(map(len, members))
        padded = [[*rows, *[rows[0]] * (width - len(rows))] for rows in members]
        numbers = [*(place.group for place in places), *(place.number for place in places), *columns]
        moved = to_device([*numbers, *(row for rows in padded for row in rows)], device)  # one copy
        is_plain = padded == [[row] for row in range(len(places))]
        of_row, packed = moved[: len(numbers)].view(3, -1), moved[len(numbers) :].view(-1, width)
        return cls(places, size, of_row, None if is_plain else packed)

    def __len__(self) -> int:
        """Number of groups."""
        return 1 + max(place.group for place in self.places)

    def of_groups(self, of_rows: Sequence[int]) -> list[int]:
        """What is equal for all rows of a group, such as their image: of each group, from that of each row."""
        found = {place.group: of_row for place, of_row in zip(self.places, of_rows, strict=True)}
        return [found[group] for group in range(len(self))]

    def pack(self, states: Tensor) -> Tensor:
        """Pack states of rows (B, heads, T, D) into groups (G, heads, M * T, D)."""
        return states if self.members is None else states[self.members].transpose(1, 2).flatten(2, 3)

    def unpack(self, states: Tensor, n_tokens: int) -> Tensor:
        """Undo ``pack``: (G, heads, M * T, D) to (B, heads, T, D); T is ``n_tokens``."""
        if self.members is None:
            return states
        group, _, column = self.of_row
        return states.unflatten(2, (-1, n_tokens))[group, :, column]

    def slots(self, numbers: Tensor) -> Tensor:
        """The slots (B, T) of tokens of the rows' suffixes, counted from their group's first suffix slot.

        Args:
            numbers: (B, T), the place of each token in its row's suffix.
        """
        return numbers * self.size + self.of_row[1][:, None]

    def visible(self, numbers: Tensor, n_suffix: int) -> Tensor:
        """Which of the first ``n_suffix * size`` suffix slots of a group a token attends to.

        Args:
            numbers: (B, T), the place of each token in its row's suffix.
            n_suffix: number of suffix tokens of a row.

        Returns:
            (G, M * T, n_suffix * size) bool: the tokens of the same row up to itself.
        """
        own = self.slots(numbers)  # (B, T)
        own = own if self.members is None else own[self.members].flatten(1)  # (G, M * T)
        slots = torch.arange(n_suffix * self.size, device=own.device)
        visible = slots <= own[..., None]
        return visible if self.size == 1 else visible & ((own[..., None] - slots) % self.size == 0)

    def narrowed(self, rows: Sequence[int]) -> tuple[RowGroups, dict[int, int]]:
        """The groups of only these rows, and which group moves to the place of which empty one, as {from: to}."""
        places = [self.places[row] for row in rows]
        moves = close_gaps({place.group for place in places})
        moved = [place._replace(group=moves.get(place.group, place.group)) for place in places]
        return self.from_places(moved, self.size, self.of_row.device), moves


def close_gaps(left: Collection[int]) -> dict[int, int]:
    """Renumber what is left of 0, 1, 2, ... without gaps: the last ones move into the gaps, as {from: to}."""
    n = len(left)
    return dict(zip(sorted(number for number in left if number >= n), sorted(set(range(n)) - set(left)), strict=True))


def _group_size(counts: Collection[int]) -> int:
    """The size that makes the fewest groups of images with so many rows each, without too many empty places."""
    for most in range(_LARGEST, 1, -1):
        splits = [-(-n // most) for n in counts]
        size = max(-(-n // parts) for n, parts in zip(counts, splits, strict=True))
        if sum(splits) * size * (1 - _EMPTY) <= sum(counts):
            return size
    return 1


def _split(images: Sequence[int], size: int) -> list[list[int]]:
    """The rows of each group, for the image of each row."""
    of_image: dict[int, list[int]] = {image: [] for image in sorted(set(images))}
    for row, image in enumerate(images):
        of_image[image].append(row)
    return [rows[start : start + size] for rows in of_image.values() for start in range(0, len(rows), size)]
