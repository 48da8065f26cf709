"""The plainest selector: the highest scores stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def topk(scores: Tensor, n_keep: int) -> Tensor:
    """Return the sorted indices of the ``n_keep`` highest scores, (B, n_keep); of equal scores the earlier token stays.

    A stable sort rather than ``torch.topk``, whose choice among equal scores is undefined.
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[:, :n_keep].sort(dim=-1).values
