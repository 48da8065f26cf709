"""DART (arXiv:2502.11494): a few pivots, then the tokens least similar to each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.pruning.method import Scorer, Selector
from deeplayer_cli.pruning.registry import Entry
from deeplayer_cli.pruning.topk import topk

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


def key_norms(inputs: ScorerInputs) -> Tensor:
    """L1 norm of every token's key, over all heads: (B, S) float32."""
    return inputs.keys.float().abs().sum((1, 3))


@dataclass(frozen=True)
class KeyNormScorer(Scorer):
    """The L1 norm of each visual token's key, after RoPE: what DART chooses its pivots by."""

    needs = frozenset({"keys"})

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return (B, n_visual) float32."""
        return key_norms(inputs)[:, inputs.visual]


@dataclass(frozen=True)
class UnlikePivots(Selector):
    """A few pivots stay, and each pivot in turn brings the visual tokens whose features are least like its own.

    1. The ``visual`` highest scores are pivots and stay; so are the ``text`` tokens behind the image with the highest
       key norms, which stay anyway.
    2. Every pivot takes an equal part of the budget's rest: the tokens not yet taken with the lowest cosine to it.

    Ours: pivots take their turns by falling norm, first the visual ones (the published code goes through a set, in no
    order); where the rest does not divide evenly, the first ones take one more, so that the budget is met exactly; and
    cosines are of what layer K puts out, without the model's last norm, which the published code puts between.

    Attributes:
        visual: 4 as published.
        text: 4 as published; a prompt has more text than that behind its image.
    """

    needs = frozenset({"keys", "features", "text_features"})
    # Not compilable: its eight sorts take minutes to compile, and next to nothing to run.
    visual: int = 4
    text: int = 4

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        behind = inputs.visual.stop
        unread = ~inputs.prompt_tokens[:, behind:]
        visual_pivots = _best(scores, min(self.visual, n_keep))
        text_pivots = _best(key_norms(inputs)[:, behind:].masked_fill(unread, -torch.inf), self.text)
        visual, text = (functional.normalize(part.float(), dim=-1) for part in (inputs.features, inputs.text_features))
        pivots = torch.cat(
            [
                visual.take_along_dim(visual_pivots[..., None], dim=1),
                text.take_along_dim(text_pivots[..., None], dim=1),
            ],
            dim=1,
        )
        likeness = pivots @ visual.mT
        taken = torch.zeros_like(scores).scatter(1, visual_pivots, 1.0)
        rest, n_pivots = n_keep - visual_pivots.shape[1], pivots.shape[1]
        for turn in range(n_pivots):
            share = (rest + n_pivots - 1 - turn) // n_pivots
            unlike = _best(-likeness[:, turn].masked_fill(taken > 0, torch.inf), share)
            taken = taken.scatter(1, unlike, 1.0)
        return topk(taken, n_keep)


def _best(scores: Tensor, n: int) -> Tensor:
    """Indices (B, n) of the highest scores, best first; of equal ones the earlier token."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[:, :n]


ENTRY = Entry(
    "a few pivots, then the tokens least similar to each of them",
    "DART (arXiv:2502.11494); that pivots take turns by key norm is ours",
    lambda _: KeyNormScorer(),
    UnlikePivots(),
    layer=2,
)
