"""The top-k selector: it keeps the tokens with the highest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.float64 import in_float64
from deeplayer_cli.pruning.method import Selection, Selector

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class TopK(Selector):
    """Keeps the ``n_keep`` highest scores."""

    takes_padding = True
    compilable = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        return topk(scores, n_keep)


@dataclass(frozen=True)
class FewestWithMass(Selector):
    """Keeps the fewest tokens that together hold a share of the scores of all visual tokens; scores are not negative.

    Attributes:
        mass: the share, 0 < mass < 1. More tokens stay if it is larger, and none of them goes.
        least_share: at least this share of the visual tokens stays.
    """

    compilable = True
    takes_padding = True
    adaptive = True
    mass: float
    least_share: float = 0.0

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Selection:
        """Return sorted indices (B, n_keep), of which the first ``counts`` are kept."""
        falling = scores.sort(dim=-1, descending=True, stable=True)
        held = in_float64(falling.values).cumsum(-1)
        n_visual = scores.shape[1]
        for_mass = (held < self.mass * held[:, -1:]).sum(-1).to(scores.device) + 1
        # As a sum over tokens, because a compiled selector must not depend on their number.
        for_least = (torch.arange(1, n_visual + 1, device=scores.device) <= self.least_share * n_visual + 1e-9).sum()
        counts = for_mass.maximum(for_least).clamp(max=n_keep)
        is_kept = torch.arange(n_keep, device=scores.device) < counts[:, None]
        indices = falling.indices[:, :n_keep].where(is_kept, n_visual).sort(-1).values  # those not kept come last
        return Selection(indices.clamp(max=n_visual - 1), counts)


def topk(scores: Tensor, n_keep: int) -> Tensor:
    """Return the sorted indices of the ``n_keep`` highest scores, (B, n_keep) int64.

    Of equal scores, the earlier token is kept.
    """
    return best_first(scores)[:, :n_keep].sort(dim=-1).values


def best_first(scores: Tensor) -> Tensor:
    """Return the indices of all scores (..., n) by falling score, int64; of equal scores, the earlier comes first."""
    # ``torch.topk`` does not define its choice among equal scores; a stable sort does.
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices


def ranks(scores: Tensor) -> Tensor:
    """Return the rank of each score (..., n) in its row, int64: 0 for the highest; ties as in `best_first`."""
    return best_first(scores).argsort(dim=-1)
