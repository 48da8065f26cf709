"""The size of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deeplayer_cli.device.memory import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from deeplayer_cli.models.internvl.model import ModelConfig

_SHARE = 0.5  # of the free memory: allocators and kernels need the rest
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


def affordable_tokens(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Return the most prompt tokens of a batch that fit into free memory beside a loaded model, up to a useful limit.

    Each token needs keys and values of all layers, twice (the image's prefix, and a copy for each of its prompts), and
    the activations that exist at once within a layer: four hidden states and three of its MLP.
    """
    text, enough = config.text_config, _ENOUGH[device.type]
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    held = 2 * text.num_hidden_layers * 2 * text.num_key_value_heads * head
    alive = 4 * text.hidden_size + 3 * text.intermediate_size
    free = free_bytes(device)
    return enough if free is None else min(enough, int(_SHARE * free / (dtype.itemsize * (held + alive))))
