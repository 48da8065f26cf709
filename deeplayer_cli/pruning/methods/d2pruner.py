"""D2Pruner (arXiv:2512.19443): scores are attention relative to a prior; pivots and an independent set are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.independent_set import PARAMETERS, from_options
from deeplayer_cli.pruning.method import Scorer
from deeplayer_cli.pruning.prior import EPSILON

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.entry import Options
    from deeplayer_cli.pruning.inputs import ScorerInputs
    from deeplayer_cli.pruning.prior import Prior


@dataclass(frozen=True)
class RelativeScorer(Scorer):
    """``attention / (prior + 1e-7)`` for each visual token; the attention is that from the last prompt token.

    Attributes:
        prior: mean attention by place, of the same model and layer.
    """

    needs = AttentionScorer.needs | {"places"}
    takes_padding = True
    prior: Prior

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        attention = AttentionScorer()(inputs)
        tile, whole = (part.to(attention.device) for part in (self.prior.tile, self.prior.whole))
        side = math.isqrt(len(tile))
        x, y, level = inputs.places.long().unbind(-1)
        within = y % side * side + x % side
        is_whole = (level == 1) | (inputs.n_visual == len(tile))
        return attention / (torch.where(is_whole, whole[within], tile[within]) + EPSILON)


def _relative(options: Options) -> Scorer:
    if options.prior is None:
        raise DeeplayerError("d2pruner needs --prior FILE, which `deeplayer calibrate` makes from images")
    if options.layer not in (None, options.prior.layer):
        raise DeeplayerError(
            f"layer {options.layer}: the prior belongs to layer {options.prior.layer}, and every layer needs its own"
        )
    return RelativeScorer(options.prior)


ENTRY = Entry(
    "70% of the budget by attention relative to a prior; the rest: tokens unlike these and unlike each other",
    "D2Pruner, arXiv:2512.19443. Ours: the spatial similarity, pivots that set aside, the prior for several tiles",
    _relative,
    from_options,
    layer=2,
    is_calibrated=True,
    parameters=PARAMETERS,
)
