"""VisPruner (arXiv:2412.01818): important tokens by class attention, and diverse ones: duplicates are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Selector
from deeplayer_cli.pruning.methods.visionzip_nomerge import ClassAttentionScorer
from deeplayer_cli.pruning.parameter import Parameter
from deeplayer_cli.pruning.topk import best_first

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs

_A_ROUND = 8
_NEAREST = 64


@dataclass(frozen=True)
class ImportantAndDiverse(Selector):
    """Keeps the highest scores, and of the other tokens those that are left when duplicates are removed in rounds.

    The others are ordered by falling score. In each round, the tokens at even places are compared with those at odd
    places; the 8 even ones whose most similar odd one is most similar (cosine) are removed. The next round has the even
    ones that are left, by falling similarity, and then the odd ones. The last round removes as many as are too many.

    Attributes:
        important: share of the budget that is kept by score.
    """

    needs = frozenset({"features"})
    takes_padding = True
    important: float = 0.5

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        n_important = int(self.important * n_keep)
        n_diverse = n_keep - n_important
        order = best_first(scores)
        likeness_to = _Neighbours.from_features(inputs.features)  # once: there are many rounds
        others = order[:, n_important:] if n_diverse else order[:, :0]
        while (too_many := others.shape[1] - n_diverse) > 0:
            even, odd = others[:, ::2], others[:, 1::2]
            likeness = likeness_to(even, odd)
            left = best_first(likeness)[:, min(_A_ROUND, too_many) :]
            others = torch.cat([even.gather(1, left), odd], dim=1)
        return torch.cat([order[:, :n_important], others], dim=1).sort(dim=1).values


@dataclass(frozen=True)
class _Neighbours:
    """Cosines between tokens, and the tokens that are most similar to each.

    Attributes:
        cosine: (B, n_visual, n_visual).
        nearest: (B, n_visual, M), the M largest cosines of each token, by falling value.
        index: (B, n_visual, M) int64, the tokens that these cosines are with.
    """

    cosine: Tensor
    nearest: Tensor
    index: Tensor

    @classmethod
    def from_features(cls, features: Tensor) -> _Neighbours:
        """The neighbours of tokens with features (B, n_visual, C)."""
        unit = functional.normalize(features.float(), dim=-1)
        cosine = unit @ unit.mT
        return cls(cosine, *cosine.topk(min(_NEAREST, cosine.shape[-1]), dim=-1))

    def __call__(self, tokens: Tensor, others: Tensor) -> Tensor:
        """The cosine of each of ``tokens`` (B, T) with the most similar of ``others`` (B, U): (B, T).

        Nearly always one of a token's neighbours is among the others, so that most of the cosines are not read.
        """
        is_other = torch.zeros_like(self.cosine[..., 0], dtype=torch.bool).scatter_(1, others, value=True)
        index, nearest = (part.take_along_dim(tokens[..., None], dim=1) for part in (self.index, self.nearest))
        is_there = is_other.take_along_dim(index.flatten(1), dim=1).view_as(index)  # (B, T, M)
        found = nearest.where(is_there, -torch.inf).amax(-1)
        row, place = found.isinf().nonzero(as_tuple=True)
        found[row, place] = self.cosine[row, tokens[row, place]].where(is_other[row], -torch.inf).amax(-1)
        return found


ENTRY = Entry(
    "a share by attention from the vision tower's class token; of the rest, what is left without duplicates",
    "VisPruner, arXiv:2412.01818. Ours: patches are summed, all tiles compete, projected tokens are compared",
    lambda _: ClassAttentionScorer(),
    lambda options: ImportantAndDiverse(float(options.parameters["important"])),
    layer=0,
    positions="renumber",
    parameters={"important": Parameter(0.5, "share of the budget that is kept by attention", low=0, high=1)},
)
