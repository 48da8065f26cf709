"""Keys and values of a batch of prompts, with a length of its own for every layer and every prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values, allocated once; writes land in place.

    ``n_shared`` tokens stand at the front of every row; a row's own tokens follow. Rows of unequal length are padded on
    the right: what is decoded overwrites the padding of its row, and ``visible`` hides the rest.

    Attributes:
        keys: (B, kv_heads, capacity, head_dim), after RoPE.
        values: as ``keys``.
        n_shared: tokens in front of each row's own.
        own_start: position id of each row's first own token; above ``n_shared`` where dropped tokens leave a gap.
    """

    keys: Tensor
    values: Tensor
    n_shared: int
    own_start: int

    @classmethod
    def empty(cls, batch: int, n_shared: int, n_own: int, like: Tensor, own_start: int) -> LayerCache:
        """Room for ``n_shared + n_own`` tokens a row; heads, dtype and device as in ``like`` (_, heads, _, dim)."""
        shape = (batch, like.shape[1], n_shared + n_own, like.shape[3])
        return cls(like.new_zeros(shape), like.new_zeros(shape), n_shared, own_start)

    @property
    def n_own(self) -> int:
        """Own tokens that there is room for."""
        return self.keys.shape[2] - self.n_shared

    def write(self, start: int, keys: Tensor, values: Tensor) -> None:
        """Put (B, kv_heads, T, head_dim) at slots start..start+T of every row."""
        self.keys[:, :, start : start + keys.shape[2]] = keys
        self.values[:, :, start : start + values.shape[2]] = values

    def write_own(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put T tokens a row, (B, kv_heads, T, head_dim), at the row's own ``slots`` (B, T)."""
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        self.keys[rows, :, self.n_shared + slots] = keys.transpose(1, 2)
        self.values[rows, :, self.n_shared + slots] = values.transpose(1, 2)

    def upto(self, n_own: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the shared tokens and the first ``n_own`` own slots."""
        end = self.n_shared + n_own
        return self.keys[:, :, :end], self.values[:, :, :end]

    def visible(self, own: Tensor, n_own: int) -> Tensor:
        """Which of the ``upto(n_own)`` slots the tokens at the own slots ``own`` (B, T) may see: (B, 1, T, S) bool."""
        slots = torch.arange(self.n_shared + n_own, device=own.device)
        return (slots <= self.n_shared + own[..., None])[:, None]


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of unequal length as one right-padded (B, T) int64 tensor and their lengths (B,)."""
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    padded = [[*row, *[0] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, device=device), torch.tensor(lengths, device=device)
