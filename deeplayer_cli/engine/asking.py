"""Whose attention scores the visual tokens: a few of a prompt's own rows, and only they ever meet the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning import QueryRows


@dataclass(frozen=True)
class Asking:
    """The own tokens of B prompts: expression, closing, draft, padding.

    Attributes:
        expressions: (B,) tokens of each expression.
        prompts: (B,) tokens until the prompt ends.
        drafted: (B,) tokens until the draft ends.
        seeds: (B,) each row's own number.
    """

    expressions: Tensor
    prompts: Tensor
    drafted: Tensor
    seeds: Tensor

    def evidence(
        self,
        rows: QueryRows | None,
        queries: Tensor,
        keys: Tensor,
        *,
        visual_start: int,
        features: Tensor,
        places: Tensor,
    ) -> Evidence:
        """What a scorer of these ``rows`` may look at.

        Args:
            rows: which own tokens ask.
            queries: (B, heads, n_own, head_dim) of the own tokens.
            keys: (B, kv_heads, S, head_dim) of everything; the own tokens come last.
            visual_start: index of the first visual token among the keys.
            features: (B, n_visual, C).
            places: (B, n_visual, 3).
        """
        n_own, n_keys = queries.shape[2], keys.shape[2]
        asked = self._asked(rows, n_own)
        # The asking rows first, in as few columns as the batch needs.
        order = asked.int().argsort(dim=1, descending=True, stable=True)[:, : int(asked.sum(1).max())]
        slots = torch.arange(n_keys, device=keys.device)
        visible = (slots <= n_keys - n_own + order[..., None]) & asked.gather(1, order)[..., None]
        picked = queries.take_along_dim(order[:, None, :, None], dim=2)
        return Evidence(picked, keys, visible, self.seeds, visual_start, features.shape[1], features, places)

    def _asked(self, rows: QueryRows | None, n_own: int) -> Tensor:
        """(B, n_own) bool."""
        own = torch.arange(n_own, device=self.prompts.device)
        match rows:
            case "last":
                return own == self.prompts[:, None] - 1
            case "text":
                return own < self.expressions[:, None]
            case "drafted":
                return own == self.drafted[:, None] - 1
            case None:
                return own < own.new_zeros(len(self.prompts), 1)
