"""Whether pruning is worth it for the rows of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.cost.flops import prefill_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths, drops_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.pruning import Method


class PruningSavings:
    """FLOPs of a run's prompts, beside what they would take without pruning, where expressions share all of an image.

    Args:
        checkpoint: the model.
        method: with which each expression has its own layers after the first drop.

    Attributes:
        pruned: FLOPs of the language model so far, up to the first answer tokens.
        unpruned: of the same rows, through the whole model with a prefix cache.
    """

    def __init__(self, checkpoint: Checkpoint, method: Method) -> None:
        self._checkpoint, self._method = checkpoint, method
        self._shape = ModelShape.from_config(checkpoint.model.config)
        self.pruned = self.unpruned = 0

    def add(self, n_visual: int, expressions: Sequence[int]) -> None:
        """Count one image of ``n_visual`` tokens and its expressions, given by their tokens."""
        n = len(expressions)
        prompt = PromptLengths.from_checkpoint(self._checkpoint, n_visual, round(sum(expressions) / n))
        self.pruned += prefill_flops(self._shape, prompt, drops_of(self._method, n_visual), n)
        self.unpruned += prefill_flops(self._shape, prompt, (), n)

    @property
    def advice(self) -> str | None:
        """A sentence where not pruning would have been cheaper."""
        if self.unpruned >= self.pruned:
            return None
        return (
            "with so many expressions an image, pruning costs more than not pruning: --method none runs an image once "
            f"for all of them, takes {1 - self.unpruned / self.pruned:.0%} fewer FLOPs and drops nothing"
        )
