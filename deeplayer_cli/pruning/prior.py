"""Mean attention by place: what calibrated methods divide by (D2Pruner, arXiv:2512.19443)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
