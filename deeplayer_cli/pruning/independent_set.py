"""D2Pruner's selector (arXiv:2512.19443): pivots, then an independent set of tokens unlike them.

"Deep-Layer Attention Pruning for Vision-Language Models" (clawRxiv 2604.00591) runs it with the scores of layer 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from deeplayer_cli.pruning.method import Selector
from deeplayer_cli.pruning.parameter import Parameter
from deeplayer_cli.pruning.topk import ranks

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.entry import Options
    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class IndependentSet(Selector):
    """Keeps the highest scores as pivots, then tokens that are unlike the pivots and unlike each other.

    1. The tokens with the ``max(1, int(pivots * n_keep))`` highest scores are pivots.
    2. Two tokens are alike if ``semantic * S_sem + (1 - semantic) * S_spat > threshold``. ``S_sem`` is the cosine of
       their features, rescaled to 0..1. ``S_spat`` is the spatial similarity, see `nearness`.
    3. Tokens like a pivot are set aside. Of the other tokens, the one with the highest score is kept, tokens like it
       are set aside, and so on.
    4. If fewer than ``n_keep`` tokens are kept then, the highest scores of the tokens set aside fill the budget.

    Our choices:

    * ``S_spat``. Its formula is published nowhere that we could read. The official function takes features, attention
      and numbers, and no grid of tiles. So its spatial similarity can come from the index of a token only, and ours by
      places cannot be equal to it. `index_nearness` uses the index alone.
    * Pivots set aside what is like them. The paper speaks of an independent set among the other tokens.

    Attributes:
        pivots: share of the budget that goes to pivots; 0.7 as published.
        threshold: tokens more similar than this are alike; 0.8 as published.
        semantic: weight of ``S_sem``; 0.5 as published for localisation.
        spatial: ``places``: ``S_spat`` is `nearness`; ``index``: `index_nearness`.
    """

    needs = frozenset({"features", "places"})
    takes_padding = True
    pivots: float = 0.7
    threshold: float = 0.8
    semantic: float = 0.5
    spatial: Literal["places", "index"] = "places"

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        rank = ranks(scores)
        alike = self.similarity(inputs.features, inputs.places) > self.threshold
        alike.diagonal(dim1=1, dim2=2).fill_(False)
        pivot = rank < max(1, int(self.pivots * n_keep))
        aside = pivot | (alike & pivot[:, None]).any(-1)
        chosen = independent_set(rank, alike, ~aside)
        # Order: pivots first, then the independent set, then the tokens set aside; each by falling score.
        turn = torch.where(pivot, 0, torch.where(chosen, 1, 2)) * rank.shape[1] + rank
        return turn.sort(dim=-1).indices[:, :n_keep].sort(dim=-1).values

    def similarity(self, features: Tensor, places: Tensor) -> Tensor:
        """Weighted similarity of every two tokens, from features (B, n, C) and places (B, n, 3): (B, n, n) float32."""
        unit = functional.normalize(features.float(), dim=-1)
        cosine = unit @ unit.mT
        near = nearness(places) if self.spatial == "places" else index_nearness(places.shape[1], places.device)
        return self.semantic * (1 + cosine) / 2 + (1 - self.semantic) * near


def nearness(places: Tensor) -> Tensor:
    """Spatial similarity: ``exp(-d^2 / 2)`` at a distance of d token widths, 0 between tiles and thumbnail.

    Args:
        places: (B, n, 3), see ``token_places``.

    Returns:
        (B, n, n) float32.
    """
    apart = torch.cdist(places[..., :2], places[..., :2], compute_mode="donot_use_mm_for_euclid_dist")
    same_level = places[:, :, None, 2] == places[:, None, :, 2]
    return torch.exp(-0.5 * apart.square()) * same_level


def index_nearness(n_visual: int, device: torch.device) -> Tensor:
    """Spatial similarity by index: ``exp(-d^2 / 2)`` for tokens that are d apart in the order of the prompt.

    Returns:
        (n_visual, n_visual) float32.
    """
    index = torch.arange(n_visual, dtype=torch.float32, device=device)
    return torch.exp(-0.5 * (index[:, None] - index).square())


def from_options(options: Options) -> IndependentSet:
    """The selector of D2Pruner and of `deep_layer_mis`, with their parameters."""
    return IndependentSet(spatial="index" if options.parameters["spatial"] == "index" else "places")


PARAMETERS = {
    "spatial": Parameter(
        "places",
        "how near two tokens are: by their places in the image, or by their index in the prompt",
        ("places", "index"),
    )
}
"""The parameters of D2Pruner and of `deep_layer_mis`."""


def independent_set(rank: Tensor, alike: Tensor, candidates: Tensor) -> Tensor:
    """The greedy maximal independent set of the candidates, in the order of ``rank``.

    It works in rounds. Each round takes every candidate that ranks before all candidates like it, and removes the
    candidates like these. The result is that of going through the candidates one by one, but a few rounds are enough
    (Blelloch, Fineman and Shun 2012, arXiv:1202.3205).

    Args:
        rank: (B, n) int64, unique within a row; lower is better.
        alike: (B, n, n) bool, symmetric, False on the diagonal.
        candidates: (B, n) bool, the tokens that may be taken.

    Returns:
        The tokens that are taken, (B, n) bool.
    """
    worst = rank.shape[1]
    chosen = torch.zeros_like(candidates)
    while candidates.any():
        rivals = torch.where(alike & candidates[:, None], rank[:, None], worst).amin(-1)
        taken = candidates & (rank < rivals)
        chosen |= taken
        candidates = candidates & ~taken & ~(alike & taken[:, None]).any(-1)
    return chosen
