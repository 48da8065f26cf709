"""The plainest selector: the highest scores stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.method import Selector

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class TopK(Selector):
    """Keeps the highest scores and looks at nothing else."""

    compilable = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        return topk(scores, n_keep)


def topk(scores: Tensor, n_keep: int) -> Tensor:
    """Return the sorted indices of the ``n_keep`` highest scores, (B, n_keep); of equal scores the earlier token stays.

    A stable sort rather than ``torch.topk``, whose choice among equal scores is undefined.
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[:, :n_keep].sort(dim=-1).values
