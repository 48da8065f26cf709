"""VisionZip (arXiv:2412.04467): dominant tokens of the vision tower, and contextual tokens that merge all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.merging import group_means, with_merged
from deeplayer_cli.pruning.method import Selection, Selector
from deeplayer_cli.pruning.methods.visionzip_nomerge import ClassAttentionScorer
from deeplayer_cli.pruning.topk import topk

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class DominantAndContextual(Selector):
    """Keeps dominant tokens as they are, and merges all others into contextual tokens.

    1. The highest scores are dominant.
    2. Of the r others, every ``r // n``-th is a target, n in all.
    3. Every token that is neither joins the target with the highest cosine similarity of vision tower keys.
    4. A contextual token is its target plus the mean of the tokens that joined it.

    Our choices: the published code merges the vision tower's output before the projector, and puts the contextual
    tokens behind the dominant ones; here projected tokens are merged, and a contextual token has its target's place.

    Attributes:
        contextual: share of the budget that goes to contextual tokens; 10 of 64 as published.
    """

    needs = frozenset({"features", "vision_keys", "weights"})
    takes_padding = True
    merges = True
    contextual: float = 10 / 64

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Selection:
        """Return a selection of ``n_keep`` tokens."""
        n_targets = int(self.contextual * n_keep)
        dominant = topk(scores, n_keep - n_targets)
        is_dominant = torch.zeros_like(scores, dtype=torch.int32).scatter(1, dominant, 1)
        others = is_dominant.argsort(dim=1, stable=True)[:, : scores.shape[1] - dominant.shape[1]]
        is_target = torch.zeros(others.shape[1], dtype=torch.bool, device=scores.device)
        if n_targets:
            is_target[:: others.shape[1] // n_targets][:n_targets] = True
        targets, joining = others[:, is_target], others[:, ~is_target]
        keys = functional.normalize(inputs.vision_keys.float(), dim=-1)
        features, weights = inputs.features, inputs.weights
        target_features, joining_features = (features.take_along_dim(part[..., None], 1) for part in (targets, joining))
        if not n_targets or not joining.shape[1]:
            return with_merged(features, weights, dominant, targets, target_features, weights.gather(1, targets))
        target_keys, joining_keys = (keys.take_along_dim(part[..., None], 1) for part in (targets, joining))
        joined = (joining_keys @ target_keys.mT).argmax(-1)
        means, _ = group_means(joining_features, joined, n_targets)
        new_weights = weights.gather(1, targets).scatter_add(1, joined, weights.gather(1, joining))
        return with_merged(features, weights, dominant, targets, target_features + means, new_weights)


ENTRY = Entry(
    "the tokens with the highest attention from the vision tower's class token; all others are merged into a few",
    "VisionZip, arXiv:2412.04467. Ours: patches are summed, all tiles compete, projected tokens are merged",
    lambda _: ClassAttentionScorer(),
    DominantAndContextual(),
    layer=0,
    positions="renumber",
)
