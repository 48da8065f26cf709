"""SparseVLM (arXiv:2410.04417) without merging: three drops, scored with the attention from the raters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Drop, Entry

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.budget import Schedule
    from deeplayer_cli.pruning.inputs import QueryRowKind, ScorerInputs

TOKENS = 576
"""Visual tokens of an image in the paper."""

STEPS: tuple[tuple[int, Schedule], ...] = (
    (3, ((17 / TOKENS, 66 / TOKENS), (36 / TOKENS, 303 / TOKENS), (110 / TOKENS, 300 / TOKENS))),
    (7, ((17 / TOKENS, 30 / TOKENS), (36 / TOKENS, 110 / TOKENS), (110 / TOKENS, 200 / TOKENS))),
    (16, ()),
)
"""The layer of each drop, and what it keeps under the three published budgets, which are what the last drop keeps.

Together, the drops keep 66, 30, 17; 303, 110, 36; or 300, 200, 110 tokens."""


@dataclass(frozen=True)
class RaterScorer(AttentionScorer):
    """The attention from the raters to each visual token, as a mean over heads and raters.

    Raters are the tokens of the question that the image speaks to. The dot products of every visual token's embedding
    with the embeddings of all prompt tokens after the image go through a softmax over these tokens; its mean over the
    visual tokens is the relevance of a text token. Those above the mean relevance are raters.
    """

    needs = AttentionScorer.needs | {"image_embeddings", "text_embeddings"}
    rows: QueryRowKind = "question"

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        raters = self.raters(inputs)[:, : inputs.visible.shape[1], None]  # question tokens come first, in their order
        return (self.by_row(inputs) * raters).sum(1) / raters.sum(1)

    def raters(self, inputs: ScorerInputs) -> Tensor:
        """Which tokens after the image are raters, (B, S - visual_start - n_visual) bool."""
        question = inputs.prompt_tokens[:, inputs.visual.stop :]
        logits = inputs.image_embeddings.float() @ inputs.text_embeddings.float().mT  # (B, N, text)
        logits = logits.masked_fill(~question[:, None], -torch.inf)
        relevance = logits.softmax(-1).mean(1)
        # The mean relevance is one divided by the number of tokens. If all are equal, none is above it: all are raters.
        above = question & (relevance * question.sum(1, keepdim=True) > 1)
        return torch.where(above.any(1, keepdim=True), above, question)


ENTRY = Entry(
    "the tokens with the highest attention from the question's tokens that the image speaks to, in three steps; "
    "nothing is merged",
    "SparseVLM, arXiv:2410.04417. Ours: budgets between and beyond the three published ones",
    drops=tuple(Drop(lambda _: RaterScorer(), of_32=layer, schedule=schedule) for layer, schedule in STEPS),
    positions="renumber",
)
