"""A regular grid: the baseline that looks at neither image nor question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.base import Evidence

_BITS = 5


@dataclass(frozen=True)
class UniformScorer:
    """Scores that fall in the order of a 32 x 32 Bayer matrix (Bayer 1973) laid over the tokens of each level.

    The quarter with the highest scores is every second token in both directions, the best sixteenth every fourth, and
    any share between is spread as evenly as such a pattern allows.
    """

    rows: None = None
    rotary: bool = True

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return (B, n_visual) int64."""
        x, y, _ = evidence.places.long().unbind(-1)
        rank = torch.zeros_like(x)
        for bit in range(_BITS):
            rank = 4 * rank + 2 * ((x ^ y) >> bit & 1) + (y >> bit & 1)
        return -rank
