"""Whose attention scores the visual tokens: a few of a prompt's own rows, and only they ever meet the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning import Asker


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

    def pick(self, rows: Asker, queries: Tensor, n_keys: int) -> tuple[Tensor, Tensor]:
        """The queries of the asking ``rows``, and which keys each of them attends to.

        Args:
            rows: who asks; of the own tokens, nobody may.
            queries: (B, heads, n_own, head_dim) of the own tokens.
            n_keys: S, of everything; the own tokens come last.

        Returns:
            (B, heads, R, head_dim), and (B, R, S) bool.
        """
        n_own = queries.shape[2]
        asked = self._asked(rows, n_own)
        # The asking rows first, in as few columns as the batch needs.
        order = asked.int().argsort(dim=1, descending=True, stable=True)[:, : int(asked.sum(1).max())]
        slots = torch.arange(n_keys, device=queries.device)
        visible = (slots <= n_keys - n_own + order[..., None]) & asked.gather(1, order)[..., None]
        return queries.take_along_dim(order[:, None, :, None], dim=2), visible

    def _asked(self, rows: Asker, n_own: int) -> Tensor:
        """(B, n_own) bool."""
        own = torch.arange(n_own, device=self.prompts.device)
        match rows:
            case "last":
                return own == self.prompts[:, None] - 1
            case "text":
                return own < self.expressions[:, None]
            case "drafted":
                return own == self.drafted[:, None] - 1
            case "class" | None:
                return own < own.new_zeros(len(self.prompts), 1)
