"""The kv cache of a batch of prompts, with a length of its own for every layer and every prompt."""

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

    The first ``n_shared`` slots of every row hold P0, visual tokens and P1; the row's suffix follows: expression,
    closing and answer. Suffixes of unequal length are padded on the right: what is decoded overwrites the padding of
    its row, and ``visible`` hides the rest.

    Attributes:
        keys: (B, kv_heads, n_shared + capacity, head_dim), after RoPE.
        values: as ``keys``.
        n_shared: slots in front of each row's suffix.
        suffix_start: position id of each row's first suffix token; above ``n_shared`` where dropped tokens leave a gap.
        filled: (B, n_shared) bool, which of the first slots hold a token; None where all do. Rows whose budgets depend
            on their content keep unequal numbers of visual tokens.
    """

    keys: Tensor
    values: Tensor
    n_shared: int
    suffix_start: int
    filled: Tensor | None = None

    @classmethod
    def empty(
        cls, batch: int, n_shared: int, capacity: int, like: Tensor, suffix_start: int, filled: Tensor | None = None
    ) -> LayerCache:
        """Space for ``n_shared + capacity`` tokens a row; heads, dtype and device as in ``like`` (_, heads, _, dim)."""
        shape = (batch, like.shape[1], n_shared + capacity, like.shape[3])
        return cls(like.new_zeros(shape), like.new_zeros(shape), n_shared, suffix_start, filled)

    @property
    def capacity(self) -> int:
        """Suffix tokens that there is space for."""
        return self.keys.shape[2] - self.n_shared

    def write(self, start: int, keys: Tensor, values: Tensor) -> None:
        """Put (B, kv_heads, T, head_dim) at slots start..start+T of every row."""
        self.keys[:, :, start : start + keys.shape[2]] = keys
        self.values[:, :, start : start + values.shape[2]] = values

    def write_suffix(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put T tokens a row, (B, kv_heads, T, head_dim), at the row's suffix ``slots`` (B, T)."""
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        self.keys[rows, :, self.n_shared + slots] = keys.transpose(1, 2)
        self.values[rows, :, self.n_shared + slots] = values.transpose(1, 2)

    def upto(self, n_suffix: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the shared slots and the first ``n_suffix`` of the suffix."""
        end = self.n_shared + n_suffix
        return self.keys[:, :, :end], self.values[:, :, :end]

    def visible(self, suffix: Tensor, n_suffix: int) -> Tensor:
        """Which of the ``upto(n_suffix)`` slots the tokens at suffix slots (B, T) may see: (B, 1, T, S) bool."""
        slots = torch.arange(self.n_shared + n_suffix, device=suffix.device)
        causal = slots <= self.n_shared + suffix[..., None]  # (B, T, S)
        if self.filled is not None:
            causal[..., : self.n_shared] &= self.filled[:, None]
        return causal[:, None]


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of unequal length as one right-padded (B, T) int64 tensor and their lengths (B,)."""
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    padded = [[*row, *[0] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, device=device), torch.tensor(lengths, device=device)
