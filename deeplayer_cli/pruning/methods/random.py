"""Random scores: the baseline that any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.method import Scorer
from deeplayer_cli.pruning.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


def hash32(x: Tensor) -> Tensor:
    """Mix 32-bit integers held in int64, so that no product overflows (two rounds of xorshift-multiply, C. Wellons)."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return x ^ (x >> 15)


@dataclass(frozen=True)
class RandomScorer(Scorer):
    """Uniform scores that depend on the prompt's seed and the token's index alone.

    A counter-based hash, not a generator: the numbers are the same on every device, in every batch and when compiled.
    """

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return (B, n_visual) float64 holding whole numbers below 2^32."""
        index = torch.arange(inputs.n_visual, device=inputs.seeds.device)
        stream = hash32(inputs.seeds & 0xFFFFFFFF)[:, None]
        return hash32((stream + index) & 0xFFFFFFFF).double()


ENTRY = Entry("a seeded random choice", "the baseline that any method must beat", lambda _: RandomScorer())
