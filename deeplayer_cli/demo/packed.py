"""The language model over many expressions per image: equal to running each alone, at a fraction of the cost.

One row is one image: its prefix (fixed text and visual tokens) once, then every suffix (expression and answer). A
suffix sees the prefix and itself, and its position ids continue after the prefix. Outside of attention nothing is
padded; inside, suffixes are padded on the right, where causality keeps the padding unseen.
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
    """Where every token stands.

    Attributes:
        images: rows.
        length: tokens of each prefix.
        width: tokens of the longest suffix.
        pad: [images * count * width] index of the suffix token in each padded place.
        real: [suffix tokens] index of each token's padded place.
        cos, sin: [all tokens, 1, head size].
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
        """Tokens of all prefixes, which come first."""
        return self.images * self.length


def forward(language: LlamaModel, prefix: torch.Tensor, suffixes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Run embeddings through all layers and the final norm.

    Args:
        language: the native language model.
        prefix: [images, prefix length, hidden].
        suffixes: [tokens, hidden], one suffix after the other, image by image.
        lengths: [images, suffixes per image] int64, tokens in each suffix.

    Returns:
        Of the suffixes, [tokens, hidden].
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
    """The layer's output ``of`` some rows: all, or those that somebody reads."""
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
    """Suffix tokens over their image's prefix and their own suffix.

    Args:
        suffix: queries, keys and values, [tokens, heads, size].
        prefix: keys and values, [images, heads, length, size].
        layout: of both.
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
