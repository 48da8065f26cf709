"""Scores from the vision tower's own attention: VisionZip's dominant tokens (arXiv:2412.04467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.base import Evidence


@dataclass(frozen=True)
class ClassAttentionScorer:
    """Attention that the vision tower's class token pays to each visual token, summed over heads.

    As published, of the last layer but one: nobody reads what the class token becomes in the last. Ours is what
    InternVL's layout asks for: a visual token gets the sum of its patches, and the tokens of all tiles compete, each
    tile's class token having the same attention to give.
    """

    rows: Literal["class"] = "class"
    rotary: bool = True

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return (B, n_visual) float32."""
        return evidence.class_attention.sum(-1)
