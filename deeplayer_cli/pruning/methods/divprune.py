"""DivPrune (arXiv:2503.02175): the most diverse visual tokens, by greedy max-min cosine distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Scorer, Selector

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class NoScore(Scorer):
    """Gives every token the score 0, for selectors that read only features."""

    needs = frozenset({"features"})
    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return zeros, (B, n_visual) in the dtype of the features."""
        return inputs.features.new_zeros(inputs.features.shape[:2])


@dataclass(frozen=True)
class MaxMin(Selector):
    """Keeps the most diverse tokens: greedy max-min diversity with the cosine distance of features.

    The first token is the one with the largest distance to its nearest neighbour. Each next token is the one with the
    largest distance to the nearest token taken so far.
    """

    needs = frozenset({"features"})
    takes_padding = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        unit = functional.normalize(inputs.features.float(), dim=-1)
        distance = 1 - unit @ unit.mT
        distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        nearest = distance.amin(-1)
        batch = torch.arange(len(unit), device=unit.device)
        taken = [nearest.argmax(-1)]
        nearest = distance[batch, taken[0]]
        while len(taken) < n_keep:
            nearest[batch, taken[-1]] = -torch.inf
            taken.append(nearest.argmax(-1))
            nearest = torch.minimum(nearest, distance[batch, taken[-1]])
        return torch.stack(taken, dim=-1).sort(dim=-1).values


ENTRY = Entry(
    "the most diverse tokens, chosen before the language model",
    "DivPrune, arXiv:2503.02175",
    lambda _: NoScore(),
    MaxMin(),
    layer=0,
    positions="renumber",
)
