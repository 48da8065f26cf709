"""DART (arXiv:2502.11494): a few pivots, then the tokens that are least similar to each pivot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Scorer, Selector
from deeplayer_cli.pruning.topk import best_first, topk

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


def key_norms(inputs: ScorerInputs) -> Tensor:
    """L1 norm of each token's key over all heads, (B, S) float32."""
    return inputs.keys.float().abs().sum((1, 3))


@dataclass(frozen=True)
class KeyNormScorer(Scorer):
    """The L1 norm of each visual token's key, after RoPE. DART chooses its pivots by it."""

    needs = frozenset({"keys"})
    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        return key_norms(inputs)[:, inputs.visual]


@dataclass(frozen=True)
class UnlikePivots(Selector):
    """Keeps a few pivots, and for each pivot the visual tokens whose features are least similar to it.

    1. The ``visual`` visual tokens with the highest scores are pivots and are kept. The ``text`` tokens after the image
       with the highest key norms are pivots as well; text is never dropped.
    2. Every pivot takes an equal part of the remaining budget: the visual tokens, not yet taken, with the lowest cosine
       similarity to it.

    Our choices:

    * Pivots take turns by falling norm, visual pivots first. The published code goes through a set, in no fixed order.
    * If the remaining budget does not divide evenly, the first pivots take one token more. So exactly ``n_keep`` tokens
      are kept.
    * Cosines compare the output of layer K. The published code applies the model's last norm to it first.
    * Text pivots come only from the text after the image; the prompt has text before the image as well.

    Attributes:
        visual: number of visual pivots; 4 as published.
        text: number of text pivots; 4 as published.
    """

    needs = frozenset({"keys", "features", "text_features"})
    takes_padding = True
    # Not compilable: its eight sorts take minutes to compile, but almost no time to run.
    visual: int = 4
    text: int = 4

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        behind = inputs.visual.stop
        unread = ~inputs.prompt_tokens[:, behind:]
        visual_pivots = best_first(scores)[:, : min(self.visual, n_keep)]
        text_norms = key_norms(inputs)[:, behind:].masked_fill(unread, -torch.inf)
        text_pivots = best_first(text_norms)[:, : self.text]
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
            unlike = best_first(-likeness[:, turn].masked_fill(taken > 0, torch.inf))[:, :share]
            taken = taken.scatter(1, unlike, 1.0)
        return topk(taken, n_keep)


ENTRY = Entry(
    "a few pivots with the highest key norms; the rest: the tokens least similar to each pivot",
    "DART, arXiv:2502.11494. Ours: pivots take turns by key norm",
    lambda _: KeyNormScorer(),
    UnlikePivots(),
    layer=2,
    positions="keep",
)
