"""Scores from the model's own attention, read at one layer.

Source: "Deep-Layer Attention Pruning for Vision-Language Models", whose code scores with layer 12 of 32, and FastV
(arXiv 2403.06764), whose code scores the same way with layer 2.
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
    """Attention that the chosen prompt rows pay to each visual token, averaged over heads and rows.

    ``softmax(q k^T / sqrt(head_dim))`` runs over all keys of the prompt, in float32, and is not renormalised over the
    visual ones. Only the chosen rows meet the keys: no full attention matrix is built.

    Attributes:
        rows: ``last`` is the last prompt token, as published; ``text`` is the mean over the expression's tokens;
            ``drafted`` is the last token of the answer's drafted beginning, the one about to write the first number.
        rotary: with RoPE, as the model attends; without it, distance does not count (FEATHER, arXiv:2412.13180).
    """

    needs = frozenset({"queries", "keys"})
    rows: QueryRowKind = "last"
    rotary: bool = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return (B, n_visual) float32."""
        queries, keys, visible = inputs.queries, inputs.keys, inputs.visible
        # Query heads under the key-value head that they share: (B, kv_heads, group, R, head_dim).
        grouped = queries.unflatten(1, (keys.shape[1], -1))
        # (B, kv_heads, group, R, S)
        logits = torch.einsum("bkgrd,bksd->bkgrs", grouped, keys) * queries.shape[-1] ** -0.5
        real_rows = visible.any(-1)
        hidden = ~(visible | ~real_rows[..., None])  # a padding row may see all: its softmax stays finite, weight 0
        weights = logits.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1, dtype=torch.float32)
        visual = weights.narrow(-1, inputs.visual_start, inputs.n_visual).mean((1, 2))  # (B, R, n_visual)
        return (visual * real_rows[..., None]).sum(1) / real_rows.sum(1, keepdim=True)
