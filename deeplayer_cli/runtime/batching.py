"""How much goes through the model at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deeplayer_cli.device.memory import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from deeplayer_cli.models.internvl.model import ModelConfig

_SHARE = 0.5  # of the free memory: allocators and kernels need the rest
_ENOUGH = {"cpu": 8192, "cuda": 131_072, "mps": 16_384}  # tokens; more would keep the device no busier


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
        """How many prompts of this length go at once."""
        return max(1, min(self.rows, self.tokens // prompt_tokens))

    def fitting(self, lengths: Iterable[int]) -> int:
        """How many of these prompts, from the first on, go at once: each is padded to the longest of them."""
        longest = n = 0
        for length in lengths:
            longest = max(longest, length)
            if n + 1 > self.count(longest):
                break
            n += 1
        return n

    def halved(self, prompt_tokens: int) -> Batching:
        """The limits after prompts of this length have turned out to be too many."""
        return replace(self, tokens=prompt_tokens * (self.count(prompt_tokens) // 2))


def affordable_tokens(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Prompt tokens for which there is room beside a model that has been loaded, as far as they make it faster.

    Counted for each: keys and values of all layers, twice (an image's, and a copy for each of its prompts), and what is
    alive at once within a layer: four states and the three of its MLP.
    """
    text, enough = config.text_config, _ENOUGH[device.type]
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    held = 2 * text.num_hidden_layers * 2 * text.num_key_value_heads * head
    alive = 4 * text.hidden_size + 3 * text.intermediate_size
    free = free_bytes(device)
    return enough if free is None else min(enough, int(_SHARE * free / (dtype.itemsize * (held + alive))))
