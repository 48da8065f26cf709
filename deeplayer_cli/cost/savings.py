"""Compares the cost of a run with the cost of the same rows without pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.cost.flops import prefill_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.pruning import Method


class PruningSavings:
    """Counts the FLOPs of a run's prompts, and the FLOPs of the same prompts without pruning.

    Without pruning, all layers run each image once for all of its expressions. With pruning, the layers after the first
    drop run once for each expression.

    Args:
        checkpoint: the model.
        method: the pruning method of the run.

    Attributes:
        pruned: FLOPs of the language model so far, up to the first answer token of each row.
        unpruned: FLOPs of the same rows in the unpruned model with a prefix cache.
    """

    def __init__(self, checkpoint: Checkpoint, method: Method) -> None:
        self._checkpoint, self._method = checkpoint, method
        from deeplayer_cli.pruning import Method  # which needs torch

        self._unpruned = Method("none")
        self._shape = ModelShape.from_config(checkpoint.model.config)
        self.pruned = self.unpruned = 0

    def add(self, n_visual: int, expressions: Sequence[int]) -> None:
        """Count one image of ``n_visual`` tokens and its expressions, given by their numbers of tokens."""
        n = len(expressions)
        prompt = PromptLengths.from_checkpoint(self._checkpoint, n_visual, round(sum(expressions) / n))
        self.pruned += prefill_flops(self._shape, prompt, self._method, n)
        self.unpruned += prefill_flops(self._shape, prompt, self._unpruned, n)

    @property
    def advice(self) -> str | None:
        """A recommendation for the user if no pruning would have been cheaper; otherwise None."""
        if self.unpruned >= self.pruned:
            return None
        return (
            "with so many expressions per image, pruning costs more than not pruning: --method none runs each image "
            f"once for all of them, takes {1 - self.unpruned / self.pruned:.0%} fewer FLOPs and drops nothing"
        )
