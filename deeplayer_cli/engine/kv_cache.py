"""The kv cache of a batch of prompts; every layer has its own length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer. They are allocated once; writes are in place.

    The first ``n_shared`` slots of every row hold P0, visual tokens and P1. The suffix follows: expression, closing and
    answer. Suffixes of different lengths are padded on the right. Decoded tokens overwrite the padding of their row;
    ``visible`` hides the rest.

    Attributes:
        keys: (B, kv_heads, n_shared + capacity, head_dim), after RoPE.
        values: (B, kv_heads, n_shared + capacity, head_dim).
        n_shared: number of slots before each row's suffix.
        suffix_start: position id of the first suffix token; larger than ``n_shared`` if dropped tokens leave a gap.
        filled: (B, n_shared) bool, which of the first slots hold a token; None if all do. Rows of a method whose budget
            depends on the content keep different numbers of visual tokens.
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
        """Allocate a cache of zeros.

        Args:
            batch: B, the number of rows.
            n_shared: number of slots before each row's suffix.
            capacity: number of suffix slots.
            like: keys or values (any, kv_heads, any, head_dim) that give the heads, dtype and device.
            suffix_start: position id of the first suffix token.
            filled: (B, n_shared) bool, which of the first slots hold a token; None if all do.
        """
        shape = (batch, like.shape[1], n_shared + capacity, like.shape[3])
        return cls(like.new_zeros(shape), like.new_zeros(shape), n_shared, suffix_start, filled)

    @property
    def capacity(self) -> int:
        """Number of suffix slots."""
        return self.keys.shape[2] - self.n_shared

    def write(self, start: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values, (B, kv_heads, T, head_dim) each, to every row, from slot ``start`` on."""
        self.keys[:, :, start : start + keys.shape[2]] = keys
        self.values[:, :, start : start + values.shape[2]] = values

    def write_rows(self, rows: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values, (B, kv_heads, T, head_dim) each, to slots (B, T) of rows (B, 1)."""
        # Indices around a slice move the indexed dimensions to the front: (B, T, kv_heads, head_dim).
        self.keys[rows, :, slots] = keys.transpose(1, 2)
        self.values[rows, :, slots] = values.transpose(1, 2)

    def has_slots_of(self, other: LayerCache) -> bool:
        """Whether the slots of both caches hold the same tokens, with the same position ids."""
        alike = (self.n_shared, self.suffix_start) == (other.n_shared, other.suffix_start)
        return alike and self.filled is other.filled

    def upto(self, n_suffix: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the shared slots and the first ``n_suffix`` suffix slots, as views."""
        end = self.n_shared + n_suffix
        return self.keys[:, :, :end], self.values[:, :, :end]

    def visible(self, suffix: Tensor, n_suffix: int) -> Tensor:
        """The attention mask over the slots of ``upto(n_suffix)``.

        Args:
            suffix: (B, T), suffix slots of the tokens that attend.
            n_suffix: number of suffix slots that they may attend to.

        Returns:
            (B, 1, T, n_shared + n_suffix) bool.
        """
        slots = torch.arange(self.n_shared + n_suffix, device=suffix.device)
        causal = slots <= self.n_shared + suffix[..., None]  # (B, T, S)
        if self.filled is not None:
            causal[..., : self.n_shared] &= self.filled[:, None]
        return causal[:, None]
