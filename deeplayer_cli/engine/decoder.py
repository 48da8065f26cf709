"""One decoder layer in three moves, as pure functions over transformers' own modules (Llama and Qwen2 alike).

Between the moves the engine stores keys, looks at queries or drops tokens; the modules' ``forward`` allows none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

Rotation = tuple["Tensor", "Tensor"]


def project(layer: LlamaDecoderLayer, hidden: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of ``hidden`` (B, T, C), queries and keys after RoPE.

    Returns:
        (B, heads, T, head_dim) and twice (B, kv_heads, T, head_dim).
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    heads = (*normed.shape[:-1], -1, attention.head_dim)
    queries = attention.q_proj(normed).view(heads).transpose(1, 2)
    keys = attention.k_proj(normed).view(heads).transpose(1, 2)
    values = attention.v_proj(normed).view(heads).transpose(1, 2)
    queries, keys = apply_rotary_pos_emb(queries, keys, *rotation)
    return queries, keys, values


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Attention of (B, heads, T, head_dim) over S keys; ``visible`` is (B or 1, 1, T, S) bool, None = causal, T = S."""
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=visible is None, enable_gqa=True
    )


def close(layer: LlamaDecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """The layer's output (B, T, C): output projection, residual, MLP, residual."""
    hidden = hidden + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def causal_after(n_past: int, n_new: int, device: torch.device) -> Tensor:
    """What ``n_new`` tokens see that follow ``n_past``: all of those, and themselves causally. (1, 1, T, S) bool."""
    visible = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=device)
    return visible.tril(diagonal=n_past)[None, None]
