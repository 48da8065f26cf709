"""One decoder layer in three moves, as pure functions over transformers' own modules (Llama and Qwen2 alike).

Between the moves the engine stores keys, looks at queries or drops tokens; the modules' ``forward`` allows none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import rotate_half

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

Rotation = tuple["Tensor", "Tensor"]
"""Cosines and sines of RoPE, each (B or 1, T, head_dim)."""


def project(layer: LlamaDecoderLayer, hidden: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of ``hidden`` (B, T, C), queries and keys after RoPE.

    Returns:
        (B, heads, T, head_dim) and twice (B, kv_heads, T, head_dim).
    """
    normed = layer.input_layernorm(hidden)
    return project_queries(layer.self_attn, normed, rotation), *project_keys(layer.self_attn, normed, rotation)


def project_queries(attention: LlamaAttention, normed: Tensor, rotation: Rotation) -> Tensor:
    """Queries (B, heads, T, head_dim) after RoPE, of normed states (B, T, C)."""
    return rotate(_heads(attention.q_proj(normed), attention.head_dim), rotation)


def project_keys(attention: LlamaAttention, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Keys, after RoPE, and values of normed states (B, T, C): twice (B, kv_heads, T, head_dim)."""
    keys = rotate(_heads(attention.k_proj(normed), attention.head_dim), rotation)
    return keys, _heads(attention.v_proj(normed), attention.head_dim)


def rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """RoPE on (B, heads, T, head_dim)."""
    cos, sin = rotation
    return states * cos[:, None] + rotate_half(states) * sin[:, None]


def unrotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Undo ``rotate``, also where RoPE scales what it turns."""
    cos, sin = rotation
    return rotate(states, (cos, -sin)) / (cos.square() + sin.square())[:, None]


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Attention of (B, heads, T, head_dim) over S keys; ``visible`` is (B or 1, 1, T, S) bool, None = causal, T = S."""
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=visible is None, enable_gqa=True
    )


def attention_output_and_mlp(layer: LlamaDecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """The layer's output (B, T, C): output projection, residual, MLP, residual."""
    hidden = hidden + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def causal_after(n_past: int, n_new: int, device: torch.device) -> Tensor:
    """What ``n_new`` tokens see that follow ``n_past``: all of those, and themselves causally. (1, 1, T, S) bool."""
    visible = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=device)
    return visible.tril(diagonal=n_past)[None, None]


def _heads(states: Tensor, head_dim: int) -> Tensor:
    return states.unflatten(-1, (-1, head_dim)).transpose(1, 2)
