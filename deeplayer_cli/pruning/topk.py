"""The plainest selector: the highest scores stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.base import Evidence


@dataclass(frozen=True)
class TopK:
    """Keeps the highest scores and looks at nothing else."""

    needs_features: bool = False
    compilable: bool = True

    def __call__(self, scores: Tensor, evidence: Evidence, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        return topk(scores, n_keep)


@dataclass(frozen=True)
class GridAndTopK:
    """Keeps a regular grid of each level first, then the highest scores: FEATHER's first stage (arXiv:2412.13180).

    The paper takes the union of both, whose size depends on how they overlap; here the number kept is given, so that
    budgets mean what they say. Where it is below the grid's, the highest scores of the grid stay.

    Attributes:
        stride: the grid holds every ``stride``-th token in both directions.
    """

    stride: int = 3
    needs_features: bool = False
    compilable: bool = True

    def __call__(self, scores: Tensor, evidence: Evidence, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        x, y, _ = evidence.places.long().unbind(-1)
        on_grid = (x % self.stride == 0) & (y % self.stride == 0)
        rank = scores.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
        return topk(-torch.where(on_grid, rank, rank + rank.shape[-1]), n_keep)


def topk(scores: Tensor, n_keep: int) -> Tensor:
    """Return the sorted indices of the ``n_keep`` highest scores, (B, n_keep); of equal scores the earlier token stays.

    A stable sort rather than ``torch.topk``, whose choice among equal scores is undefined.
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[:, :n_keep].sort(dim=-1).values
