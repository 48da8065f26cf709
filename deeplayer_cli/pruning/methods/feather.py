"""FEATHER (arXiv:2412.13180): a grid and the highest attention, then only the highest attention; both without RoPE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Drop, Entry
from deeplayer_cli.pruning.method import Selector
from deeplayer_cli.pruning.topk import ranks, topk

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.entry import Options
    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class GridAndTopK(Selector):
    """Keeps a regular grid of each level, then the highest scores: FEATHER's first stage (arXiv:2412.13180).

    The paper takes the union of grid and top-k, whose size depends on their overlap. Here the number of kept tokens is
    fixed, so that a budget is met exactly. If it is smaller than the grid, the highest scores of the grid are kept.

    Attributes:
        stride: the grid holds every ``stride``-th token in both directions.
    """

    needs = frozenset({"places"})
    takes_padding = True
    compilable = True
    stride: int = 3

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        x, y, _ = inputs.places.long().unbind(-1)
        on_grid = (x % self.stride == 0) & (y % self.stride == 0)
        rank = ranks(scores)
        return topk(-torch.where(on_grid, rank, rank + rank.shape[-1]), n_keep)


def _without_rope(options: Options) -> AttentionScorer:
    return AttentionScorer(options.query, rotary=False, softmax_over="visual")


ENTRY = Entry(
    "a regular grid and the highest attention without RoPE; then, of these, the highest attention without RoPE",
    "FEATHER, arXiv:2412.13180. Ours: the number of tokens is fixed",
    drops=(
        Drop(_without_rope, GridAndTopK(), of_32=8, power=0.288),  # published: 30% and a ninth of the rest
        Drop(_without_rope, of_32=16),  # published: 9% of these
    ),
    positions="keep",
)
