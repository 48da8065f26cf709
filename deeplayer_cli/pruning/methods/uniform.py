"""A regular grid: the baseline that looks at neither image nor question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.method import Scorer
from deeplayer_cli.pruning.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs

_BITS = 5


@dataclass(frozen=True)
class UniformScorer(Scorer):
    """Scores that fall in the order of a 32 x 32 Bayer matrix (Bayer 1973) laid over the tokens of each level.

    The quarter with the highest scores is every second token in both directions, the best sixteenth every fourth, and
    any share between is spread as evenly as such a pattern allows.
    """

    needs = frozenset({"places"})

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return (B, n_visual) int64."""
        x, y, _ = inputs.places.long().unbind(-1)
        rank = torch.zeros_like(x)
        for bit in range(_BITS):
            rank = 4 * rank + 2 * ((x ^ y) >> bit & 1) + (y >> bit & 1)
        return -rank


ENTRY = Entry("a regular grid", "the baseline that reads neither image nor expression", lambda _: UniformScorer())
