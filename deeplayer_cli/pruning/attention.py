"""Scores visual tokens with the model's own attention in one layer.

Sources: "Deep-Layer Attention Pruning for Vision-Language Models" (clawRxiv 2604.00591), whose code scores with layer
12 of 32, and FastV (arXiv:2403.06764), whose code scores in the same way with layer 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from deeplayer_cli.pruning.method import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import QueryRowKind, ScorerInputs


SoftmaxOver = Literal["prompt", "visual"]


@dataclass(frozen=True)
class AttentionScorer(Scorer):
    """The attention from the query rows to each visual token, as a mean over heads and rows.

    ``softmax(q k^T / sqrt(head_dim))`` is computed in float32. Only the query rows are multiplied with the keys, so no
    full attention matrix is built.

    Attributes:
        rows: the query rows. ``last``: the last prompt token, as published. ``text``: the mean over the expression's
            tokens. ``drafted``: the last token of the draft; the next token is the first number of the answer.
        rotary: True: queries and keys after RoPE, as in the model. False: before RoPE, so that distance has no effect
            (FEATHER, arXiv:2412.13180).
        softmax_over: ``prompt``: the softmax of each head runs over all keys that the row attends to, as in the model;
            it is not renormalised over the visual tokens. ``visual``: it runs over the visual tokens only.
    """

    needs = frozenset({"queries", "keys"})
    takes_padding = True
    rows: QueryRowKind = "last"
    rotary: bool = True
    softmax_over: SoftmaxOver = "prompt"

    def __post_init__(self) -> None:
        if self.softmax_over not in get_args(SoftmaxOver):
            raise ValueError(f"softmax_over must be {' or '.join(get_args(SoftmaxOver))}, not {self.softmax_over!r}")

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        real_rows = inputs.visible.any(-1)
        return (self.by_row(inputs) * real_rows[..., None]).sum(1) / real_rows.sum(1, keepdim=True)

    def by_row(self, inputs: ScorerInputs) -> Tensor:
        """Return the attention of each query row, as a mean over heads: (B, R, n_visual) float32.

        A row that is padding holds finite numbers without a meaning.
        """
        queries, keys, visible = inputs.queries, inputs.keys, inputs.visible
        # Group the query heads by the key-value head that they share: (B, kv_heads, group, R, head_dim).
        grouped = queries.unflatten(1, (keys.shape[1], -1))
        # (B, kv_heads, group, R, S)
        logits = torch.einsum("bkgrd,bksd->bkgrs", grouped, keys) * queries.shape[-1] ** -0.5
        if self.softmax_over == "visual":  # every row comes after all visual tokens, so none of them is hidden
            logits = logits.narrow(-1, inputs.visual_start, inputs.n_visual)
            return logits.softmax(-1, dtype=torch.float32).mean((1, 2))
        # A padding row attends to all keys, so that its softmax stays finite.
        hidden = ~(visible | ~visible.any(-1, keepdim=True))  # (B, R, S)
        weights = logits.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1, dtype=torch.float32)
        return weights.narrow(-1, inputs.visual_start, inputs.n_visual).mean((1, 2))
