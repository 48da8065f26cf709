"""CDPruner (arXiv:2506.10967), with the language model's embeddings in place of CLIP's text tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.device.float64 import back_from_float64, in_float64
from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Scorer, Selector

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs

_NONE = 1e-9
"""Gains below this are rounding errors: the tokens that are left lie in the span of those that are taken."""


@dataclass(frozen=True)
class TextRelevance(Scorer):
    """How relevant each visual token is to the question: minus its mean cosine with the question's tokens, from 0 to 1.

    Within an image, a number x becomes ``(x - least + 1e-6) / (greatest - least)``, as published. The sign is published
    as well: CLIP's image tokens are the less like the text, the more they are about it. Our choice: the published
    method compares image and text with the towers of CLIP, which InternVL does not have; here, the language model's own
    embeddings are compared.
    """

    needs = frozenset({"features", "text_embeddings"})
    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float64; float32 if the device has no float64."""
        question = in_float64(inputs.prompt_tokens[:, inputs.visual.stop :])
        visual, text = (
            functional.normalize(in_float64(part), dim=-1) for part in (inputs.features, inputs.text_embeddings)
        )
        cosine = (visual @ text.mT * question[:, None]).sum(-1) / question.sum(-1, keepdim=True)
        low, high = (-cosine).aminmax(dim=-1, keepdim=True)
        return back_from_float64((-cosine - low + 1e-6) / (high - low).clamp(min=1e-6), inputs.features.device)


@dataclass(frozen=True)
class ConditionalDiversity(Selector):
    """Keeps the tokens that a determinantal point process finds most likely, greedily: relevant and unlike each other.

    Its kernel is ``L_ij = r_i cos(f_i, f_j) r_j`` with scores r and features f. Each step takes the token that enlarges
    the determinant most (Chen, Zhang and Zhou 2018, arXiv:1709.05135). Tokens that no longer enlarge it, because the
    features have too few dimensions, follow by falling score. It computes in float64, on the CPU if the device has no
    float64: rounding must not decide which tokens are unlike the others.
    """

    needs = frozenset({"features"})
    takes_padding = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        relevance = in_float64(scores)
        scaled = functional.normalize(in_float64(inputs.features), dim=-1) * relevance[..., None]
        kernel = scaled @ scaled.mT
        batch = torch.arange(len(kernel), device=kernel.device)
        gain = kernel.diagonal(dim1=1, dim2=2).clone()
        factor = kernel.new_zeros(len(kernel), n_keep, kernel.shape[1])  # Cholesky, one row for each step
        taken: list[Tensor] = []
        by_score = relevance - relevance.amax(-1, keepdim=True) - 1  # below every gain
        for step in range(n_keep):
            best = torch.where(gain > _NONE, gain, by_score).argmax(-1)
            earlier = factor[:, :step]
            row = kernel[batch, best] - (earlier[batch, :, best][:, None] @ earlier)[:, 0]
            pivot = gain[batch, best]
            row = torch.where(pivot[:, None] > _NONE, row / pivot.clamp(min=_NONE).sqrt()[:, None], 0)
            gain = gain - row.square()
            gain[batch, best] = by_score[batch, best] = -torch.inf
            factor[:, step] = row
            taken.append(best)
        return torch.stack(taken, dim=-1).sort(dim=-1).values.to(scores.device)


ENTRY = Entry(
    "tokens relevant to the question and unlike each other: a determinantal point process, before the language model",
    "CDPruner, arXiv:2506.10967. Ours: relevance by the language model's embeddings instead of CLIP's",
    lambda _: TextRelevance(),
    ConditionalDiversity(),
    layer=0,
    positions="renumber",
)
