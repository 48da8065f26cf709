"""The language model of a checkpoint: it runs one layer at a time, and reads the text before the image only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.decoder import (
    attend,
    attend_causally,
    attention_output_and_mlp,
    causal_after,
    project,
    project_few,
    project_unweighted,
    unweighted_norm,
)
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    from deeplayer_cli.engine.compiler import Compiler
    from deeplayer_cli.engine.decoder import Rotation
    from deeplayer_cli.engine.kv_cache import LayerCache, Step
    from deeplayer_cli.models.internvl.model import Model


class LanguageModel:
    """A language model that runs one layer at a time. Its constructor runs P0, the text before the image.

    Args:
        model: the whole model, in transformers' own classes.
        before_image: token ids of P0.
        compiler: compiles the layers over suffixes and answers; None to run them uncompiled.

    Attributes:
        layers: the decoder layers.
        least_width: the least number of tokens of a decode pass.
        n_p0: number of tokens of P0.
        p0: for every layer, P0's queries (1, heads, n_p0, head_dim), keys and values (1, kv_heads, n_p0, head_dim).
    """

    def __init__(self, model: Model, before_image: Sequence[int], compiler: Compiler | None = None) -> None:
        self._model = model
        self._decoder = model.model.language_model
        self.layers = list(self._decoder.layers)
        self._run_cached = compiler(run_cached_layer) if compiler else run_cached_layer
        self._run_after = compiler(run_layer_after) if compiler else run_layer_after
        # A dimension of 1 is compiled on its own; tokens of padding are there in most passes anyway.
        self.least_width = 2 if compiler else 1
        self._unweighted_norm = unweighted_norm(self.layers[0])
        self._rotations = self._compute_rotations()
        self.n_p0 = len(before_image)
        self.p0 = self._read_p0(before_image)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self._decoder.embed_tokens.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the hidden states."""
        dtype: torch.dtype = self._decoder.embed_tokens.weight.dtype
        return dtype

    @property
    def group(self) -> int:
        """Number of query heads that share keys and values."""
        return int(self.layers[0].self_attn.num_key_value_groups)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (B, T, C) of token ids (B, T)."""
        embedded: Tensor = self._decoder.embed_tokens(ids)
        return embedded

    def rotation(self, position_ids: Tensor) -> Rotation:
        """Cosines and sines of RoPE, (B or 1, T, head_dim) each, for position ids (B or 1, T) that the model has."""
        cos, sin = self._rotations
        return cos[position_ids], sin[position_ids]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of the last layer's output (..., C)."""
        logits: Tensor = self._model.lm_head(self._decoder.norm(hidden))
        return logits

    def prepend_p0(self, index: int, *following: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Put P0's keys and values of a layer before those of the tokens that follow P0.

        Args:
            index: 0-based index of the layer.
            following: keys and values (B, kv_heads, T, head_dim) of these tokens, part after part.

        Returns:
            Keys and values (B, kv_heads, n_p0 + all T, head_dim).
        """
        keys, values = (
            torch.cat([p0.expand(len(parts[0]), -1, -1, -1), *parts], dim=2)
            for p0, *parts in zip(self.p0[index][1:], *following, strict=True)
        )
        return keys, values

    def run_layer(
        self, index: int, hidden: Tensor, rotation: Rotation, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one layer over tokens that follow P0, with causal attention.

        Args:
            index: 0-based index of the layer.
            hidden: (B, T, C), input of the layer for the tokens after P0.
            rotation: RoPE of these tokens.
            visible: attention mask (B, 1, T, n_p0 + T) bool; None for a causal mask.

        Returns:
            Output of the layer (B, T, C), and queries (B, heads, T, head_dim) of ``hidden``; keys and values
            (B, kv_heads, n_p0 + T, head_dim) of P0 and ``hidden``.
        """
        layer = self.layers[index]
        queries, *own = project(layer, hidden, rotation)
        keys, values = self.prepend_p0(index, own)
        if visible is None:
            attended = attend_causally(queries, keys, values, self.p0[index][0])
        else:
            attended = attend(queries, keys, values, visible)
        return attention_output_and_mlp(layer, hidden, attended), queries, keys, values

    def normalise_frozen(self, hidden: Tensor) -> Tensor:
        """Normalise hidden states (B, F, C) that no later layer updates, once for all of these layers.

        A layer's own norm differs from it in its weight only: all layers of a model have the same epsilon.
        """
        normed: Tensor = self._unweighted_norm(hidden)
        return normed

    def project_frozen(self, index: int, frozen: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Project keys and values of tokens that a layer does not update.

        Args:
            index: 0-based index of the layer.
            frozen: (B, F, C), hidden states of tokens that follow P0, from `normalise_frozen`.
            rotation: RoPE of these tokens.

        Returns:
            Keys and values (B, kv_heads, n_p0 + F, head_dim) of P0 and these tokens.
        """
        return self.prepend_p0(index, project_unweighted(self.layers[index], frozen, rotation))

    def run_frozen_layer(
        self, index: int, frozen: Tensor, hidden: Tensor, rotation: Rotation, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one layer over tokens that follow P0, but only project keys and values of the first F of them.

        Args:
            index: 0-based index of the layer.
            frozen: (B, F, C), hidden states of the first tokens, from `normalise_frozen`; the layer does not update
                them.
            hidden: (B, T, C), input of the layer for the other tokens.
            rotation: RoPE of all F + T tokens.
            visible: attention mask (B, 1, F + T, n_p0 + F + T) bool; None for a causal mask.

        Returns:
            Output of the layer (B, T, C) and queries (B, heads, T, head_dim) of the other tokens; keys and values
            (B, kv_heads, n_p0 + F + T, head_dim) of P0 and all tokens.
        """
        layer, n_frozen = self.layers[index], frozen.shape[1]
        before, after = (tuple(part.split((n_frozen, hidden.shape[1]), dim=1)) for part in rotation)
        queries, *own = project(layer, hidden, (before[1], after[1]))
        first = project_unweighted(layer, frozen, (before[0], after[0]))
        keys, values = self.prepend_p0(index, first, own)
        if visible is None:
            visible = causal_after(self.n_p0 + n_frozen, hidden.shape[1], self.device)  # (1, 1, T, n_p0 + F + T)
        attended = attend(queries, keys, values, visible[:, :, -hidden.shape[1] :])
        return attention_output_and_mlp(layer, hidden, attended), queries, keys, values

    def run_cached(
        self, index: int, hidden: Tensor, rotation: Rotation, cache: LayerCache, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Run one layer over new tokens, which attend to a cache and to themselves.

        Args:
            index: 0-based index of the layer.
            hidden: (B, T, C), input of the layer for the new tokens.
            rotation: RoPE of the new tokens.
            cache: gets the keys and values of the new tokens.
            step: where these go.

        Returns:
            Output of the layer (B, T, C), and the queries of the new tokens (B, heads, T, head_dim).
        """
        return self._run_cached(self.layers[index], hidden, rotation, cache, step)

    def run_after(
        self, index: int, hidden: Tensor, rotation: Rotation, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one layer over tokens that follow known keys and values.

        Args:
            index: 0-based index of the layer.
            hidden: (B, T, C), input of the layer for these tokens.
            rotation: RoPE of these tokens.
            keys: (B, kv_heads, S, head_dim).
            values: the same.
            mask: (1, 1, group * T, S + T), a `packed_mask` of the keys that each token attends to.

        Returns:
            Output of the layer (B, T, C), queries (B, heads, T, head_dim) of these tokens, and keys and values
            (B, kv_heads, S + T, head_dim) of all.
        """
        return self._run_after(self.layers[index], hidden, rotation, keys, values, mask)

    @torch.inference_mode()
    def _compute_rotations(self) -> Rotation:
        """Cosines and sines of every position of the model, (max_position_embeddings, head_dim) each.

        They are computed once: transformers compares positions on the device each time, for dynamic RoPE scaling.

        Raises:
            DeeplayerError: the rotations of a prompt depend on its length.
        """
        if self._decoder.rotary_emb.rope_type == "longrope":
            raise DeeplayerError("models with rope_type longrope are not supported: use another --model")
        weight = self._decoder.embed_tokens.weight
        positions = torch.arange(self._decoder.config.max_position_embeddings, device=weight.device)
        cos, sin = self._decoder.rotary_emb(weight, positions[None])
        return cos[0], sin[0]

    @torch.inference_mode()
    def _read_p0(self, before_image: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        hidden = self.embed(to_device([before_image], self.device))
        rotation = self.rotation(torch.arange(self.n_p0, device=self.device)[None])
        read = []
        for layer in self.layers:
            queries, keys, values = project(layer, hidden, rotation)
            hidden = attention_output_and_mlp(
                layer, hidden, attend_causally(queries, keys, values, queries[:, :, :0])
            )  # (1, n_p0, C)
            read.append((queries, keys, values))
        return read


def run_cached_layer(
    layer: LlamaDecoderLayer, hidden: Tensor, rotation: Rotation, cache: LayerCache, step: Step
) -> tuple[Tensor, Tensor]:
    """Run a layer over new tokens; see `LanguageModel.run_cached`. Its graph has no break and waits for no value."""
    groups = cache.slots.groups
    queries, keys, values = project_few(layer, hidden, rotation)
    cache.write(step.written, keys, values)
    attended = attend(groups.pack(queries), *cache.upto(step.mask.shape[-1]), step.mask)
    return attention_output_and_mlp(layer, hidden, groups.unpack(attended, hidden.shape[1])), queries


def run_layer_after(
    layer: LlamaDecoderLayer, hidden: Tensor, rotation: Rotation, keys: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a layer over tokens that follow known keys and values; see `LanguageModel.run_after`."""
    queries, *own = project_few(layer, hidden, rotation)
    keys, values = (torch.cat(parts, dim=2) for parts in zip((keys, values), own, strict=True))
    attended = attend(queries, keys, values, mask)
    return attention_output_and_mlp(layer, hidden, attended), queries, keys, values
