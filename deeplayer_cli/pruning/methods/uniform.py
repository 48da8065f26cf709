"""A regular grid: a baseline that reads neither image nor expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs

_BITS = 5


@dataclass(frozen=True)
class UniformScorer(Scorer):
    """Scores fall in the order of a 32 x 32 Bayer matrix (Bayer 1973), repeated over the tokens of each level.

    The quarter with the highest scores is every second token in both directions. The best sixteenth is every fourth
    token. Any share between these is spread as evenly as such a pattern allows.
    """

    needs = frozenset({"places"})
    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) int64."""
        x, y, _ = inputs.places.long().unbind(-1)
        rank = torch.zeros_like(x)
        for bit in range(_BITS):
            rank = 4 * rank + 2 * ((x ^ y) >> bit & 1) + (y >> bit & 1)
        return -rank


ENTRY = Entry(
    "a regular grid of tokens", "a baseline that reads neither image nor expression", lambda _: UniformScorer()
)
