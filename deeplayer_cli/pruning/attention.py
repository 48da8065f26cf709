"""Scores visual tokens with the model's own attention in one layer.

Sources: "Deep-Layer Attention Pruning for Vision-Language Models" (clawRxiv 2604.00591), whose code scores with layer
12 of 32, and FastV (arXiv:2403.06764), whose code scores in the same way with layer 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.method import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import QueryRowKind, ScorerInputs


@dataclass(frozen=True)
class AttentionScorer(Scorer):
    """The attention from the query rows to each visual token, as a mean over heads and rows.

    ``softmax(q k^T / sqrt(head_dim))`` runs over all keys of the prompt, in float32. It is not renormalised over the
    visual tokens. Only the query rows are multiplied with the keys, so no full attention matrix is built.

    Attributes:
        rows: the query rows. ``last``: the last prompt token, as published. ``text``: the mean over the expression's
            tokens. ``drafted``: the last token of the draft; the next token is the first number of the answer.
        rotary: True: queries and keys after RoPE, as in the model. False: before RoPE, so that distance has no effect
            (FEATHER, arXiv:2412.13180).
    """

    needs = frozenset({"queries", "keys"})
    rows: QueryRowKind = "last"
    rotary: bool = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        queries, keys, visible = inputs.queries, inputs.keys, inputs.visible
        # Group the query heads by the key-value head that they share: (B, kv_heads, group, R, head_dim).
        grouped = queries.unflatten(1, (keys.shape[1], -1))
        # (B, kv_heads, group, R, S)
        logits = torch.einsum("bkgrd,bksd->bkgrs", grouped, keys) * queries.shape[-1] ** -0.5
        real_rows = visible.any(-1)
        # A padding row attends to all keys, so that its softmax stays finite. Its weight in the mean is 0.
        hidden = ~(visible | ~real_rows[..., None])  # (B, R, S)
        weights = logits.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1, dtype=torch.float32)
        visual = weights.narrow(-1, inputs.visual_start, inputs.n_visual).mean((1, 2))  # (B, R, n_visual)
        return (visual * real_rows[..., None]).sum(1) / real_rows.sum(1, keepdim=True)
