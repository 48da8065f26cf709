"""VisionZip's dominant tokens (arXiv:2412.04467), without merging: the vision tower's own attention scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.method import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs


@dataclass(frozen=True)
class ClassAttentionScorer(Scorer):
    """The attention from the vision tower's class token to each visual token, summed over heads.

    As published, it is the attention in the tower's last layer but one, because nothing reads the class token after the
    last layer. Our choices, because of InternVL's layout: the score of a visual token is the sum over its patches, and
    the tokens of all tiles compete. The attention of each tile's class token adds up to 1 per head, itself included.
    """

    needs = frozenset({"class_attention"})
    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        return inputs.class_attention.sum(-1)


ENTRY = Entry(
    "the tokens with the highest attention from the vision tower's class token; nothing is merged",
    "VisionZip, arXiv:2412.04467. Ours: patches are summed, and all tiles compete",
    lambda _: ClassAttentionScorer(),
    layer=0,
    positions="renumber",
)
