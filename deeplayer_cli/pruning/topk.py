"""The top-k selector: it keeps the tokens with the highest scores."""

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
    """Keeps the ``n_keep`` highest scores."""

    takes_padding = True
    compilable = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        return topk(scores, n_keep)


def topk(scores: Tensor, n_keep: int) -> Tensor:
    """Return the sorted indices of the ``n_keep`` highest scores, (B, n_keep) int64.

    Of equal scores, the earlier token is kept.
    """
    # ``torch.topk`` does not define its choice among equal scores; a stable sort does.
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[:, :n_keep].sort(dim=-1).values
