"""The language model over many expressions per image: equal to running each alone, at a fraction of the cost.

One row is one image: its prefix (fixed text and visual tokens) once, then every suffix (expression and answer). A
suffix sees the prefix and itself, and its position ids continue after the prefix. Suffixes are padded on the right;
causality keeps the padding unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

Rotary = tuple[torch.Tensor, torch.Tensor]


def forward(language: LlamaModel, prefix: torch.Tensor, suffixes: torch.Tensor) -> torch.Tensor:
    """Run embeddings through all layers and the final norm.

    Args:
        language: the native language model.
        prefix: [images, prefix length, hidden].
        suffixes: [images, suffixes per image, suffix length, hidden].

    Returns:
        [images, suffixes per image, suffix length, hidden].
    """
    images, length, hidden = prefix.shape
    count, width = suffixes.shape[1:3]
    positions = torch.cat((torch.arange(length), (length + torch.arange(width)).repeat(count)))
    rotary = language.rotary_emb(prefix, positions[None])
    states = torch.cat((prefix, suffixes.reshape(images, count * width, hidden)), dim=1)
    for layer in language.layers:
        states = _layer(layer, states, rotary, length, count)
    return language.norm(states[:, length:]).view(images, count, width, hidden)


def _layer(layer: LlamaDecoderLayer, states: torch.Tensor, rotary: Rotary, length: int, count: int) -> torch.Tensor:
    states = states + _attention(layer.self_attn, layer.input_layernorm(states), rotary, length, count)
    return states + layer.mlp(layer.post_attention_layernorm(states))


def _attention(block: LlamaAttention, states: torch.Tensor, rotary: Rotary, length: int, count: int) -> torch.Tensor:
    images, tokens, _ = states.shape
    query = _rotate(block.q_proj(states).view(images, tokens, -1, block.head_dim).transpose(1, 2), rotary)
    key = _rotate(block.k_proj(states).view(images, tokens, -1, block.head_dim).transpose(1, 2), rotary)
    value = block.v_proj(states).view(images, tokens, -1, block.head_dim).transpose(1, 2)
    queries, keys, values = (part.split((length, tokens - length), dim=2) for part in (query, key, value))
    prefix = functional.scaled_dot_product_attention(queries[0], keys[0], values[0], is_causal=True, enable_gqa=True)
    suffix = functional.scaled_dot_product_attention(
        _one_row_each(queries[1], count),
        _behind(keys[0], _one_row_each(keys[1], count)),
        _behind(values[0], _one_row_each(values[1], count)),
        attn_mask=_sees(length, (tokens - length) // count),
        enable_gqa=True,
    )
    suffix = suffix.unflatten(0, (images, count)).transpose(1, 2).flatten(2, 3)
    joined = torch.cat((prefix, suffix), dim=2).transpose(1, 2)
    return block.o_proj(joined.flatten(2))


def _one_row_each(states: torch.Tensor, count: int) -> torch.Tensor:
    """[images, heads, count * width, size] to [images * count, heads, width, size]."""
    return states.unflatten(2, (count, -1)).transpose(1, 2).flatten(0, 1)


def _behind(prefix: torch.Tensor, suffixes: torch.Tensor) -> torch.Tensor:
    """Put every image's prefix in front of each of its suffixes."""
    return torch.cat((prefix.repeat_interleave(len(suffixes) // len(prefix), dim=0), suffixes), dim=2)


def _sees(length: int, width: int) -> torch.Tensor:
    """[width, length + width] bool: the whole prefix, and the suffix causally."""
    return torch.ones(width, length + width, dtype=torch.bool).tril(length)


def _rotate(states: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    cos, sin = rotary
    first, second = states.chunk(2, dim=-1)
    return states * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
