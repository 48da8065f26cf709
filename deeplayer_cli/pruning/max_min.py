"""The most diverse tokens: DivPrune (arXiv:2503.02175)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.base import Evidence


@dataclass(frozen=True)
class NoScore:
    """Every token is worth the same: for selectors that look at features alone."""

    rows: None = None
    rotary: bool = True

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return zeros, (B, n_visual)."""
        return evidence.features.new_zeros(evidence.features.shape[:2])


@dataclass(frozen=True)
class MaxMin:
    """Greedy max-min diversity over the cosine distance of features.

    The first token is the one farthest from its nearest neighbour; each next one is the farthest from all those taken.
    """

    needs_features: bool = True
    compilable: bool = False

    def __call__(self, scores: Tensor, evidence: Evidence, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        unit = functional.normalize(evidence.features.float(), dim=-1)
        distance = 1 - unit @ unit.mT
        distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        nearest = distance.amin(-1)
        batch = torch.arange(len(unit), device=unit.device)
        taken = [nearest.argmax(-1)]
        nearest = distance[batch, taken[0]]
        while len(taken) < n_keep:
            nearest[batch, taken[-1]] = -torch.inf
            taken.append(nearest.argmax(-1))
            nearest = torch.minimum(nearest, distance[batch, taken[-1]])
        return torch.stack(taken, dim=-1).sort(dim=-1).values
