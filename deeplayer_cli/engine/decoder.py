"""One decoder layer as pure functions over transformers' own modules (Llama and Qwen2).

A layer has three parts: `project`, `attend` and `attention_output_and_mlp`. Between them, the engine stores keys and
values, reads queries and drops tokens. The modules' own ``forward`` allows none of this.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from deeplayer_cli.device import blocked_attention

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

# The least number of tokens that go through an MLP together on a CPU. For all tokens of an image, its wide states would
# often take new memory, whose pages the system has to clear, in every layer. Each block reads the weights once more.
_MLP_BLOCK = 512

Rotation = tuple["Tensor", "Tensor"]
"""Cosines and sines of RoPE, each (B or 1, T, head_dim)."""


def project(layer: LlamaDecoderLayer, hidden: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a layer's queries, keys and values of ``hidden`` (B, T, C); queries and keys are after RoPE.

    Returns:
        Queries (B, heads, T, head_dim), keys and values (B, kv_heads, T, head_dim).
    """
    normed = layer.input_layernorm(hidden)
    return project_queries(layer.self_attn, normed, rotation), *project_keys(layer.self_attn, normed, rotation)


def project_few(layer: LlamaDecoderLayer, hidden: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """As `project`, for few tokens: queries and keys are rotated together, with fewer kernels and one copy more."""
    normed, attention = layer.input_layernorm(hidden), layer.self_attn
    turned = torch.cat([attention.q_proj(normed), attention.k_proj(normed)], dim=-1)
    turned = rotate(_heads(turned, attention.head_dim), rotation)  # (B, heads + kv_heads, T, head_dim)
    values = _heads(attention.v_proj(normed), attention.head_dim)
    n_keys = values.shape[1]
    return turned[:, :-n_keys], turned[:, -n_keys:], values


def project_queries(attention: LlamaAttention, normed: Tensor, rotation: Rotation) -> Tensor:
    """Queries after RoPE, (B, heads, T, head_dim), from normalised hidden states (B, T, C)."""
    return rotate(_heads(attention.q_proj(normed), attention.head_dim), rotation)


def project_keys(attention: LlamaAttention, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Keys after RoPE and values, (B, kv_heads, T, head_dim) each, from normalised hidden states (B, T, C)."""
    keys = rotate(_heads(attention.k_proj(normed), attention.head_dim), rotation)
    return keys, _heads(attention.v_proj(normed), attention.head_dim)


def unweighted_norm(layer: LlamaDecoderLayer) -> nn.Module:
    """A copy of a layer's ``input_layernorm`` without its weight, for hidden states (B, T, C).

    Only the weight differs between layers, so hidden states that no layer updates are normalised once for all of them.
    """
    norm = layer.input_layernorm
    weight = nn.Parameter(torch.ones_like(norm.weight), requires_grad=False)
    return deepcopy(norm, {id(norm.weight): weight})


def project_unweighted(layer: LlamaDecoderLayer, unweighted: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Keys after RoPE and values, as `project_keys`, from hidden states (B, T, C) after an `unweighted_norm`."""
    return project_keys(layer.self_attn, unweighted * layer.input_layernorm.weight, rotation)


def rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Apply RoPE to queries or keys (B, heads, T, head_dim): the first half of a head turns against the second."""
    cos, sin = (part[:, None] for part in rotation)
    half = states.shape[-1] // 2
    turned = states * cos
    turned[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)  # in place: a CPU is slow to get memory
    turned[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return turned


def unrotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Undo ``rotate`` on queries or keys (B, heads, T, head_dim)."""
    cos, sin = rotation
    # The inverse rotation. The divisor is 1, unless the model's RoPE also scales (cos and sin carry the factor).
    return rotate(states, (cos, -sin)) / (cos.square() + sin.square())[:, None]


def attend_causally(queries: Tensor, keys: Tensor, values: Tensor, before: Tensor) -> Tensor:
    """Causal attention of the last T of S tokens, without the output projection.

    Args:
        queries: (B, heads, T, head_dim).
        keys: (B, kv_heads, S, head_dim).
        values: (B, kv_heads, S, head_dim).
        before: (1, heads, S - T, head_dim), the queries of the first tokens. With them, the attention is square: it
            needs no mask, and SDPA runs its fastest kernel. What it computes for them is thrown away.

    Returns:
        (B, heads, T, head_dim).
    """
    if blocked_attention.serves(queries, keys):
        return blocked_attention.attention(queries, keys, values, is_causal=True)
    square = torch.cat([before.expand(len(queries), -1, -1, -1), queries], dim=2)
    attended = functional.scaled_dot_product_attention(square, keys, values, is_causal=True, enable_gqa=True)
    return attended[:, :, before.shape[2] :]


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Attention with a mask, without the output projection.

    The queries that share a key-value head are rows of one head: no kernel of torch that takes a mask reads shared keys
    without copying them, and on a CPU each key is then read once, not once per query head.

    Args:
        queries: (B, heads, T, head_dim).
        keys: (B, kv_heads, S, head_dim).
        values: (B, kv_heads, S, head_dim).
        visible: (B or 1, 1, T, S) bool, the keys that each query attends to; or a `packed_mask` of these.

    Returns:
        (B, heads, T, head_dim).
    """
    grouped = queries.unflatten(1, (keys.shape[1], -1))  # (B, kv_heads, group, T, head_dim)
    mask = visible.repeat(1, 1, grouped.shape[2], 1) if visible.dtype == torch.bool else visible
    packed = grouped.flatten(2, 3)
    if blocked_attention.serves(packed, keys):
        attended = blocked_attention.attention(packed, keys, values, mask=mask)
    else:
        attended = functional.scaled_dot_product_attention(packed, keys, values, attn_mask=mask)
    return attended.view_as(grouped).flatten(1, 2)


def packed_mask(visible: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """The mask that SDPA adds to the scores of `attend`. Layers that share it make it once.

    Args:
        visible: (B or 1, 1, T, S) bool, the keys that each query attends to.
        group: number of query heads that share keys.
        dtype: of the queries.

    Returns:
        (B or 1, 1, group * T, S): 0 or -inf.
    """
    masked = ~visible.repeat(1, 1, group, 1)
    *before, n_keys = masked.shape
    # In memory, a row has a multiple of 8 numbers: on CUDA, SDPA would copy any other mask in every layer. It has more
    # numbers than keys: a compiled graph that has seen a mask without gaps serves no other.
    mask = torch.zeros(*before, (n_keys // 8 + 1) * 8, dtype=dtype, device=masked.device)[..., :n_keys]
    return mask.masked_fill_(masked, -torch.inf)


def attention_output_and_mlp(layer: LlamaDecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer: output projection, residual, MLP, residual.

    Args:
        layer: the decoder layer.
        hidden: (B, T, C), input of the layer.
        attended: (B, heads, T, head_dim), from `attend` or `attend_causally`.

    Returns:
        Output of the layer, (B, T, C).
    """
    hidden = hidden + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
    # A compiled graph would be of one number of blocks.
    by_blocks = hidden.device.type == "cpu" and not torch.compiler.is_compiling()
    n_blocks = hidden.shape[:2].numel() // _MLP_BLOCK if by_blocks else 1
    if n_blocks < 2:
        return hidden + _mlp(layer, hidden)
    for block in hidden.view(-1, hidden.shape[-1]).chunk(n_blocks):  # views, (tokens, C)
        block += _mlp(layer, block)
    return hidden


def causal_after(n_past: int, n_new: int, device: torch.device) -> Tensor:
    """The causal mask of ``n_new`` tokens that follow ``n_past`` tokens: (1, 1, n_new, n_past + n_new) bool."""
    visible = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=device)
    return visible.tril(diagonal=n_past)[None, None]


def _mlp(layer: LlamaDecoderLayer, hidden: Tensor) -> Tensor:
    """The MLP of ``hidden`` (..., C), as transformers computes it, with two wide states at once instead of three."""
    mlp, normed = layer.mlp, layer.post_attention_layernorm(hidden)
    gate = mlp.act_fn(mlp.gate_proj(normed))
    down: Tensor = mlp.down_proj(gate.mul_(mlp.up_proj(normed)))
    return down


def _heads(states: Tensor, head_dim: int) -> Tensor:
    return states.unflatten(-1, (-1, head_dim)).transpose(1, 2)  # (B, heads, T, head_dim)
