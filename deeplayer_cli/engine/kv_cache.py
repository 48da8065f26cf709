"""The kv cache of a batch of prompts; every layer has its own length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from deeplayer_cli.engine.decoder import packed_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.row_groups import RowGroups


class Step(NamedTuple):
    """Where T new tokens of B rows go in caches with the same slots, and what they attend to.

    Attributes:
        written: (B, T), the slot that each token is written to.
        mask: (G, 1, group * M * T, end), the `packed_mask` of the packed rows, for ``group`` heads that share keys;
            ``end`` is the number of slots that they may attend to.
    """

    written: Tensor
    mask: Tensor


@dataclass(frozen=True)
class CacheSlots:
    """The slots of a cache; layers between two drops have the same.

    The first ``n_shared`` slots of every group of rows hold P0, visual tokens and P1. The suffixes of its rows follow:
    expression, closing and answer. Suffixes of different lengths are padded on the right. Decoded tokens overwrite the
    padding of their row; the mask hides the rest.

    Attributes:
        groups: which rows share their first slots.
        n_shared: number of slots before the suffixes.
        capacity: number of suffix slots of each row.
        suffix_start: position id of the first suffix token; larger than ``n_shared`` if dropped tokens leave a gap.
        filled: (G, n_shared) bool, which of the first slots hold a token; None if all do. Rows of a method whose budget
            depends on the content keep different numbers of visual tokens.
    """

    groups: RowGroups
    n_shared: int
    capacity: int
    suffix_start: int
    filled: Tensor | None = None

    def step(self, numbers: Tensor, written: Tensor, n_suffix: int, group: int, dtype: torch.dtype) -> Step:
        """Place new tokens.

        Args:
            numbers: (B, T), the place of each token in its row's suffix.
            written: (B, T), the same, but for padding the place that it may overwrite.
            n_suffix: number of suffix tokens of a row that they may attend to.
            group: number of query heads that share keys.
            dtype: of the queries.
        """
        suffix = self.groups.visible(numbers, n_suffix)  # (G, M * T, n_suffix * size)
        if self.filled is None:
            shared = suffix.new_ones(1, 1, 1).expand(*suffix.shape[:2], self.n_shared)
        else:
            shared = self.filled[:, None].expand(-1, suffix.shape[1], -1)
        mask = packed_mask(torch.cat([shared, suffix], dim=2)[:, None], group, dtype)
        return Step(self.n_shared + self.groups.slots(written), mask)

    def narrowed(self, rows: Sequence[int]) -> tuple[CacheSlots, dict[int, int]]:
        """The slots of only these rows, and which group moves to the place of which other, as {from: to}."""
        groups, moves = self.groups.narrowed(rows)
        filled = None if self.filled is None else move_groups(self.filled, moves, len(groups))
        return CacheSlots(groups, self.n_shared, self.capacity, self.suffix_start, filled), moves


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer. They are allocated once; writes are in place.

    Attributes:
        keys: (G, kv_heads, n_shared + capacity * size, head_dim), after RoPE.
        values: the same.
        slots: what the slots hold.
    """

    keys: Tensor
    values: Tensor
    slots: CacheSlots

    @classmethod
    def from_shared(cls, slots: CacheSlots, keys: Tensor, values: Tensor, images: Sequence[int]) -> LayerCache:
        """Allocate a cache, with keys and values of what rows share.

        Args:
            slots: of B rows.
            keys: (N, kv_heads, n_shared, head_dim), for N images.
            values: the same.
            images: the image of each row; rows of a group have the same.
        """
        return cls(_shared_in_groups(slots, keys, images), _shared_in_groups(slots, values, images), slots)

    @classmethod
    def from_rows(cls, slots: CacheSlots, keys: Tensor, values: Tensor) -> LayerCache:
        """Allocate a cache for rows that share nothing, with their keys and values so far.

        Args:
            slots: of B rows.
            keys: (B, kv_heads, n_shared + T, head_dim), for T suffix tokens.
            values: the same.
        """
        n_slots = slots.n_shared + slots.capacity
        return cls(_with_space(keys, n_slots), _with_space(values, n_slots), slots)

    def write(self, written: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values, (B, kv_heads, T, head_dim) each, to the slots ``written`` (B, T)."""
        # Indices around a slice move the indexed dimensions to the front: (B, T, kv_heads, head_dim).
        group = self.slots.groups.of_row[0][:, None]
        self.keys[group, :, written] = keys.transpose(1, 2)
        self.values[group, :, written] = values.transpose(1, 2)

    def upto(self, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first ``end`` slots, as views."""
        return self.keys[:, :, :end], self.values[:, :, :end]

    def of_rows(self, n_suffix: int) -> tuple[Tensor, Tensor]:
        """Keys and values of each row, (B, kv_heads, n_shared + n_suffix, head_dim) each: a view if every row is alone.

        Args:
            n_suffix: number of suffix tokens.
        """
        n_shared, groups = self.slots.n_shared, self.slots.groups
        if groups.members is None and groups.size == 1:
            return self.upto(n_shared + n_suffix)
        group, number, _ = groups.of_row
        slots = torch.arange(n_shared + n_suffix, device=group.device).expand(len(group), -1)
        slots = torch.where(slots < n_shared, slots, n_shared + (slots - n_shared) * groups.size + number[:, None])
        keys, values = (part[group[:, None], :, slots].transpose(1, 2) for part in (self.keys, self.values))
        return keys, values

    def is_finite(self, row: int) -> bool:
        """Whether all keys and values of a row are finite."""
        place, size, n_shared = self.slots.groups.places[row], self.slots.groups.size, self.slots.n_shared
        own = (part[place.group] for part in (self.keys, self.values))
        parts = (part for whole in own for part in (whole[:, :n_shared], whole[:, n_shared + place.number :: size]))
        return all(bool(part.isfinite().all()) for part in parts)


def narrow_caches(caches: Sequence[LayerCache], rows: Sequence[int]) -> list[LayerCache]:
    """The caches of only these rows, in this order, as views: the groups that are left move together, in place."""
    narrowed: list[LayerCache] = []
    before = None
    for cache in caches:
        if cache.slots is not before:
            before = cache.slots
            slots, moves = before.narrowed(rows)
        keys, values = (move_groups(part, moves, len(slots.groups)) for part in (cache.keys, cache.values))
        narrowed.append(LayerCache(keys, values, slots))
    return narrowed


def move_groups(states: Tensor, moves: Mapping[int, int], n_groups: int) -> Tensor:
    """Move groups of ``states`` (G, ...) in place, as {from: to}; return the first ``n_groups``, as a view."""
    for origin, target in moves.items():
        states[target] = states[origin]
    return states[:n_groups]


def _shared_in_groups(slots: CacheSlots, shared: Tensor, images: Sequence[int]) -> Tensor:
    """Keys or values (N, kv_heads, n_shared, head_dim) of images, once for each group, with space for the suffixes."""
    n_groups, size = len(slots.groups), slots.groups.size
    held = _allocated(shared, n_groups, slots.n_shared, slots.n_shared + slots.capacity * size)
    for first, last, image in _runs(slots.groups.of_groups(images)):
        held[first:last, :, : slots.n_shared] = shared[image : image + last - first]
    return held


def _with_space(states: Tensor, n_slots: int) -> Tensor:
    """Keys or values (B, kv_heads, S, head_dim), with space up to ``n_slots``."""
    held = _allocated(states, len(states), states.shape[2], n_slots)
    held[:, :, : states.shape[2]] = states
    return held


def _allocated(like: Tensor, n_groups: int, n_filled: int, n_slots: int) -> Tensor:
    """Space for keys or values (n_groups, kv_heads, n_slots, head_dim); the caller fills the first ``n_filled``."""
    held = like.new_empty(n_groups, like.shape[1], n_slots, like.shape[3])
    held[:, :, n_filled:] = 0  # no token sees them, but attention multiplies them by 0
    return held


def _runs(images: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Slices (first, last) of groups whose images follow each other, and the image of the first."""
    first = 0
    for group in range(1, len(images) + 1):
        if group == len(images) or images[group] != images[group - 1] + 1:
            yield first, group, images[first]
            first = group
