"""FEATHER (arXiv:2412.13180): a grid and the highest attention without RoPE, then again the highest attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.method import Selector
from deeplayer_cli.pruning.registry import Drop, Entry
from deeplayer_cli.pruning.topk import topk

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs
    from deeplayer_cli.pruning.registry import Options


@dataclass(frozen=True)
class GridAndTopK(Selector):
    """Keeps a regular grid of each level first, then the highest scores: FEATHER's first stage (arXiv:2412.13180).

    The paper takes the union of both, whose size depends on how they overlap; here the number kept is given, so that
    budgets mean what they say. Where it is below the grid's, the highest scores of the grid stay.

    Attributes:
        stride: the grid holds every ``stride``-th token in both directions.
    """

    needs = frozenset({"places"})
    compilable = True
    stride: int = 3

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        x, y, _ = inputs.places.long().unbind(-1)
        on_grid = (x % self.stride == 0) & (y % self.stride == 0)
        rank = scores.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
        return topk(-torch.where(on_grid, rank, rank + rank.shape[-1]), n_keep)


def _without_rope(options: Options) -> AttentionScorer:
    return AttentionScorer(options.query, rotary=False)


ENTRY = Entry(
    "a grid and the tokens with the highest attention without RoPE; of these, again those with the highest attention",
    "FEATHER (arXiv:2412.13180)",
    drops=(
        Drop(_without_rope, GridAndTopK(), of_32=8, power=0.288),  # 30% and a ninth of the rest
        Drop(_without_rope, of_32=16),  # then 9% of these
    ),
)
