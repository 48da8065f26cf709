"""Pivots, and an independent set of what differs from them: D2Pruner's selector (arXiv:2512.19443).

The paper "Deep-Layer Attention Pruning for Vision-Language Models" ran it with the scores of layer 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.pruning.method import Selector

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class IndependentSet(Selector):
    """The best tokens stay as pivots; the rest of the budget goes to tokens unlike them and unlike each other.

    1. The ``int(pivots * n_keep)`` highest scores, at least one, are pivots.
    2. Two tokens are alike if ``semantic * S_sem + (1 - semantic) * S_spat > threshold``, where ``S_sem`` is the cosine
       of their features rescaled to 0..1 and ``S_spat`` is `nearness`.
    3. What is like a pivot is set aside. Of the others the best stays, what is like it is set aside, and so on.
    4. If that leaves the budget short, the best of those set aside fill it.

    The spatial similarity is published nowhere that could be read: `nearness` is this project's choice.

    Attributes:
        pivots: share of the budget, 0.7 as published.
        threshold: 0.8 as published.
        semantic: weight of the features against the places, 0.5 as published for localisation.
    """

    needs = frozenset({"features", "places"})
    pivots: float = 0.7
    threshold: float = 0.8
    semantic: float = 0.5

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep)."""
        rank = scores.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
        alike = self.similarity(inputs.features, inputs.places) > self.threshold
        alike.diagonal(dim1=1, dim2=2).fill_(False)
        pivot = rank < max(1, int(self.pivots * n_keep))
        aside = pivot | (alike & pivot[:, None]).any(-1)
        chosen = independent_set(rank, alike, ~aside)
        turn = torch.where(pivot, 0, torch.where(chosen, 1, 2)) * rank.shape[1] + rank
        return turn.sort(dim=-1).indices[:, :n_keep].sort(dim=-1).values

    def similarity(self, features: Tensor, places: Tensor) -> Tensor:
        """S of every two tokens, (B, n, n) float32, from features (B, n, C) and places (B, n, 3)."""
        unit = functional.normalize(features.float(), dim=-1)
        cosine = unit @ unit.mT
        return self.semantic * (1 + cosine) / 2 + (1 - self.semantic) * nearness(places)


def nearness(places: Tensor) -> Tensor:
    """``exp(-d^2 / 2)`` for tokens d token widths apart, 0 between tiles and thumbnail: (B, n, 3) to (B, n, n)."""
    apart = torch.cdist(places[..., :2], places[..., :2], compute_mode="donot_use_mm_for_euclid_dist")
    same_level = places[:, :, None, 2] == places[:, None, :, 2]
    return torch.exp(-0.5 * apart.square()) * same_level


def independent_set(rank: Tensor, alike: Tensor, candidates: Tensor) -> Tensor:
    """The greedy maximal independent set of the candidates, in order of ``rank``.

    In rounds: whoever ranks before all alike candidates is taken, and those go. That takes exactly what going through
    the candidates one by one would take (Blelloch, Fineman and Shun 2012, arXiv:1202.3205), in few rounds.

    Args:
        rank: (B, n) int64, unique within a row; lower is better.
        alike: (B, n, n) bool, symmetric, False on the diagonal.
        candidates: (B, n) bool.

    Returns:
        (B, n) bool.
    """
    worst = rank.shape[1]
    chosen = torch.zeros_like(candidates)
    while candidates.any():
        rivals = torch.where(alike & candidates[:, None], rank[:, None], worst).amin(-1)
        taken = candidates & (rank < rivals)
        chosen |= taken
        candidates = candidates & ~taken & ~(alike & taken[:, None]).any(-1)
    return chosen
