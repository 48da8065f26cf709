"""A prior: mean attention by place. Calibrated methods divide attention by it (D2Pruner, arXiv:2512.19443)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


EPSILON = 1e-7
"""Added to a prior before attention is divided by it, as published."""


@dataclass(frozen=True)
class Prior:
    """Mean attention of each place within a tile, over many images and one neutral question.

    We found nothing published on how D2Pruner uses its prior for several tiles. Our choice: attention is divided by the
    mean attention of the image's visual tokens. One prior serves all tiles. Another prior serves the view of the whole
    image: the thumbnail, or the only tile.

    Attributes:
        tile: (tokens per tile,) float32, for tiles.
        whole: (tokens per tile,) float32, for the view of the whole image.
        layer: the layer of the attention, counted from 1.
    """

    tile: Tensor
    whole: Tensor
    layer: int
