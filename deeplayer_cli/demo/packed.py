"""The language model's forward pass over many expressions per image; the prefix of an image is computed once.

The result equals that of running each expression alone. One row is one image: its prefix (fixed text and visual
tokens), then all suffixes (each is an expression, the end of its question, and the answer). A suffix attends to the
prefix and to itself. Its position ids continue after the prefix. Only attention pads the suffixes, on the right, where
the causal mask hides the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer


@dataclass(frozen=True)
class _Layout:
    """The positions of all tokens: first those of all prefixes, then those of all suffixes.

    Attributes:
        images: number of images.
        length: number of tokens of each prefix.
        width: number of tokens of the longest suffix.
        pad: [images * count * width] int64, index of the suffix token in each padded place.
        real: [suffix tokens] int64, index of each suffix token's padded place.
        cos, sin: [all tokens, 1, head size], rotary position embeddings.
    """

    images: int
    length: int
    width: int
    pad: torch.Tensor
    real: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    @property
    def prefixes(self) -> int:
        """Number of tokens of all prefixes together."""
        return self.images * self.length


def forward(language: LlamaModel, prefix: torch.Tensor, suffixes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Run embeddings through all layers and the final norm.

    Args:
        language: transformers' language model.
        prefix: [images, prefix length, hidden], embeddings of the prefixes.
        suffixes: [tokens, hidden], embeddings of the suffixes, concatenated image by image.
        lengths: [images, suffixes per image] int64, number of tokens of each suffix.

    Returns:
        Final hidden states of the suffixes, [tokens, hidden].
    """
    layout = _lay_out(language, prefix, lengths)
    states = torch.cat((prefix.flatten(0, 1), suffixes))
    *layers, last = language.layers
    for layer in layers:
        states = _layer(layer, states, layout)
    return language.norm(_layer(last, states, layout, of=slice(layout.prefixes, None)))


def _lay_out(language: LlamaModel, prefix: torch.Tensor, lengths: torch.Tensor) -> _Layout:
    images, length, _ = prefix.shape
    count, width = lengths.shape[1], int(lengths.max())
    places = torch.arange(width)
    filled = (places < lengths[..., None]).flatten()
    real = filled.nonzero().squeeze(1)
    pad = (filled.cumsum(0) - 1).clamp(min=0)
    positions = torch.cat((torch.arange(length).repeat(images), length + places.repeat(images * count)[real]))
    cos, sin = language.rotary_emb(prefix, positions[None])
    return _Layout(images, length, width, pad, real, cos[0, :, None], sin[0, :, None])


def _layer(layer: LlamaDecoderLayer, states: torch.Tensor, layout: _Layout, of: slice = slice(None)) -> torch.Tensor:
    """Compute the layer's output for the tokens ``of``: all tokens, or only those that are needed later."""
    states = states[of] + _attention(layer.self_attn, layer.input_layernorm(states), layout, of)
    return states + layer.mlp(layer.post_attention_layernorm(states))


def _attention(block: LlamaAttention, states: torch.Tensor, layout: _Layout, of: slice) -> torch.Tensor:
    query = _rotate(block.q_proj(states[of]).unflatten(1, (-1, block.head_dim)), layout, of)
    key = _rotate(block.k_proj(states).unflatten(1, (-1, block.head_dim)), layout, slice(None))
    value = block.v_proj(states).unflatten(1, (-1, block.head_dim))
    of_suffixes = len(states) - layout.prefixes
    keys, values = (part.split((layout.prefixes, of_suffixes)) for part in (key, value))
    queries = query.split((len(query) - of_suffixes, of_suffixes))
    shared = tuple(part.unflatten(0, (layout.images, -1)).transpose(1, 2) for part in (keys[0], values[0]))
    attended = _suffix_attention((queries[1], keys[1], values[1]), shared, layout)
    if len(queries[0]):
        prefix = queries[0].unflatten(0, (layout.images, -1)).transpose(1, 2)
        prefix = functional.scaled_dot_product_attention(prefix, shared[0], shared[1], is_causal=True, enable_gqa=True)
        attended = torch.cat((prefix.transpose(1, 2).flatten(0, 1), attended))
    return block.o_proj(attended.flatten(1))


def _suffix_attention(
    suffix: tuple[torch.Tensor, ...], prefix: tuple[torch.Tensor, ...], layout: _Layout
) -> torch.Tensor:
    """Compute the attention of suffix tokens to their image's prefix and to their own suffix.

    Args:
        suffix: queries, keys and values of the suffix tokens, each [tokens, heads, head size].
        prefix: keys and values of the prefixes, each [images, heads, length, head size].
        layout: the positions of the tokens.

    Returns:
        [tokens, heads, head size].
    """
    query, key, value = (part[layout.pad].unflatten(0, (-1, layout.width)).transpose(1, 2) for part in suffix)
    repeated = (part.repeat_interleave(len(key) // layout.images, dim=0) for part in prefix)
    key, value = (torch.cat(parts, dim=2) for parts in zip(repeated, (key, value), strict=True))
    sees = torch.ones(layout.width, layout.length + layout.width, dtype=torch.bool).tril(layout.length)
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=sees, enable_gqa=True)
    return attended.transpose(1, 2).flatten(0, 1)[layout.real]


def _rotate(states: torch.Tensor, layout: _Layout, of: slice) -> torch.Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * layout.cos[of] + torch.cat((-second, first), dim=-1) * layout.sin[of]
