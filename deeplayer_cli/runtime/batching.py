"""The size of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deeplayer_cli.cost.memory import estimated_bytes
from deeplayer_cli.device.memory import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from deeplayer_cli.cost.shape import ModelShape, PromptLengths
    from deeplayer_cli.pruning import Method

# Of the free memory. On CUDA, the allocator and the kernels need the rest; elsewhere, other programs need memory too.
_SHARE = {"cpu": 0.5, "cuda": 0.8, "mps": 0.5}
_ENOUGH = {"cpu": 8192, "cuda": 131_072, "mps": 16_384}  # tokens; larger batches would not be faster


@dataclass(frozen=True)
class Batching:
    """The limits of a batch; a single prompt is always allowed.

    Attributes:
        rows: the most prompts, and images, at once.
        tokens: the most prompt tokens at once.
    """

    rows: int
    tokens: int

    def count(self, prompt_tokens: int) -> int:
        """Return the number of prompts of this length that fit into a batch."""
        return max(1, min(self.rows, self.tokens // prompt_tokens))

    def fitting(self, lengths: Iterable[int]) -> int:
        """Return how many of these prompts, from the first on, fit into a batch; all are padded to the longest."""
        longest = n = 0
        for length in lengths:
            longest = max(longest, length)
            if n + 1 > self.count(longest):
                break
            n += 1
        return n

    def halved(self, prompt_tokens: int) -> Batching:
        """Return smaller limits: half as many prompts of this length fit into a batch."""
        return replace(self, tokens=prompt_tokens * (self.count(prompt_tokens) // 2))


def affordable_tokens(
    shape: ModelShape,
    prompts: Iterable[PromptLengths],
    method: Method,
    n_answer: int,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Return the most prompt tokens of a batch that fit into free memory beside a loaded model, up to a useful limit.

    Args:
        shape: dimensions of the model.
        prompts: a batch may be of any of these; each prompt is about an image of its own.
        method: the method.
        n_answer: the most tokens of an answer.
        dtype: of the model.
        device: of the model.
    """
    enough, free = _ENOUGH[device.type], free_bytes(device)
    if free is None:
        return enough
    of_token = max(
        estimated_bytes(shape, prompt, method, n_answer, dtype.itemsize) / prompt.length(prompt.visual)
        for prompt in prompts
    )
    return min(enough, int(_SHARE[device.type] * free / of_token))
