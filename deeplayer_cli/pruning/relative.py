"""Attention relative to what every image gets: D2Pruner's scores (arXiv:2512.19443)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.attention import AttentionScorer

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.base import Evidence, QueryRows

_EPSILON = 1e-7


@dataclass(frozen=True)
class Prior:
    """Mean attention by place, over many images and one question that asks for nothing in particular.

    How the paper carries its prior over to several tiles is published nowhere that could be read. Ours: attention
    counts in units of what every visual token of its image gets on average; one prior serves all tiles, another one the
    view of the whole image, which is the thumbnail or the only tile.

    Attributes:
        tile: (tokens per tile,) float32.
        whole: (tokens per tile,) float32.
        layer: 1-based, whose attention it is.
    """

    tile: Tensor
    whole: Tensor
    layer: int


@dataclass(frozen=True)
class RelativeScorer:
    """``attention / (prior + 1e-7)`` for each visual token, of the last prompt token.

    Attributes:
        prior: of the same model and layer.
    """

    prior: Prior
    rows: QueryRows = "last"
    rotary: bool = True

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return (B, n_visual) float32."""
        attention = AttentionScorer()(evidence)
        tile, whole = (part.to(attention.device) for part in (self.prior.tile, self.prior.whole))
        side = math.isqrt(len(tile))
        x, y, level = evidence.places.long().unbind(-1)
        within = y % side * side + x % side
        is_whole = (level == 1) | (evidence.n_visual == len(tile))
        return attention / (torch.where(is_whole, whole[within], tile[within]) + _EPSILON)
