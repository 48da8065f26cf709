"""Scores from the vision tower's own attention: VisionZip's dominant tokens (arXiv:2412.04467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.pruning.method import Scorer
from deeplayer_cli.pruning.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class ClassAttentionScorer(Scorer):
    """Attention that the vision tower's class token pays to each visual token, summed over heads.

    As published, of the last layer but one: nobody reads what the class token becomes in the last. Ours is what
    InternVL's layout asks for: a visual token gets the sum of its patches, and the tokens of all tiles compete, each
    tile's class token having the same attention to give.
    """

    needs = frozenset({"class_attention"})

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return (B, n_visual) float32."""
        return inputs.class_attention.sum(-1)


ENTRY = Entry(
    "the tokens with the highest attention of the vision tower's class token; nothing is merged",
    "VisionZip (arXiv:2412.04467); that patches are summed and tiles compete is ours",
    lambda _: ClassAttentionScorer(),
    layer=0,
)
