"""Random scores: a baseline that any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


def hash32(x: Tensor) -> Tensor:
    """Hash 32-bit integers with two rounds of xorshift-multiply (C. Wellons, "hash-prospector").

    Args:
        x: int64 tensor of any shape, values from 0 to 2^32 - 1. In int64, no product overflows.

    Returns:
        Values from 0 to 2^32 - 1, in the same shape and dtype.
    """
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return x ^ (x >> 15)


@dataclass(frozen=True)
class RandomScorer(Scorer):
    """Random scores that depend only on the prompt's seed and the token's index.

    They come from a hash, not from a generator. So they are the same on every device, in every batch and when compiled.
    """

    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) int64, from 0 to 2^32 - 1."""
        index = torch.arange(inputs.n_visual, device=inputs.seeds.device)
        stream = hash32(inputs.seeds & 0xFFFFFFFF)[:, None]
        return hash32((stream + index) & 0xFFFFFFFF)


ENTRY = Entry(
    "a random choice of tokens, fixed by the seed and the row's id",
    "a baseline that any method must beat",
    lambda _: RandomScorer(),
)
