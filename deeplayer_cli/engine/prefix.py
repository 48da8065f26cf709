"""The prefix: layers 1..K over P0, visual tokens and P1, which all expressions about an image share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.decoder import (
    attend,
    attention_output_and_mlp,
    causal_after,
    project_keys,
    project_queries,
)
from deeplayer_cli.engine.types import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.engine.decoder import Rotation
    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.models.internvl.vision import Encoded
    from deeplayer_cli.pruning import Method

PrefixKind = tuple[int, bool]
"""K, the number of layers that a prefix runs through, and whether layer K is deferred."""


def prefix_kind(method: Method, n_layers: int, n_visual: int) -> PrefixKind:
    """The kind of prefix that a method needs.

    If nothing is dropped, the prefix runs through all layers, and the last layer is deferred: later tokens read only
    its keys and values.

    Args:
        method: the pruning method.
        n_layers: L, the number of decoder layers.
        n_visual: number of visual tokens of an image.
    """
    if not method.prunes(n_visual):
        return n_layers, True
    first = method.stages[0]
    return first.drop_after_layer, first.defers_layer


def run_prefix(
    language: LanguageModel, after_image: Tensor, images: Encoded, places: Tensor, kind: PrefixKind
) -> Prefix:
    """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

    Args:
        language: the model.
        after_image: (1, n_p1) token ids of P1.
        images: N images.
        places: (N, n_visual, 3), from ``pruning.token_places``.
        kind: K, and whether layer K is deferred.
    """
    n_images, n_visual, _ = images.features.shape
    n_layers, is_deferred = kind
    # (N, n_visual + n_p1, C); the keys and values of P0 are known already.
    text_embeddings = language.embed(after_image)
    hidden = torch.cat([images.features, text_embeddings.expand(n_images, -1, -1)], dim=1)
    n_shared = language.n_p0 + hidden.shape[1]
    rotation = language.rotation(torch.arange(language.n_p0, n_shared, device=language.device)[None])
    keys, values = [], []
    queries = hidden.new_empty(n_images, 1, text_embeddings.shape[1], 1)
    for index in range(n_layers - is_deferred):
        hidden, queries, layer_keys, layer_values = language.run_layer(index, hidden, rotation)  # keys: P0 included
        keys.append(layer_keys)
        values.append(layer_values)
    visual, text = hidden[:, :n_visual], hidden[:, n_visual:]
    if is_deferred:
        text, queries, layer_keys, layer_values = _defer_layer(language, n_layers - 1, hidden, n_visual, rotation)
        keys.append(layer_keys)
        values.append(layer_values)
    return Prefix(
        tuple(keys),
        tuple(values),
        visual,
        text,
        queries[:, :, -text.shape[1] :].contiguous(),  # a copy, so that the visual tokens' queries are freed
        images.features,
        text_embeddings,
        is_deferred,
        places.to(hidden.device),
        images.class_attention,
        n_shared,
    )


def _defer_layer(
    language: LanguageModel, index: int, hidden: Tensor, n_visual: int, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a layer in full for P1, but compute only keys and values of the visual tokens.

    Every later token attends to the keys and values of all visual tokens. But only the kept tokens need the layer's
    output, and they are not known yet: `finish_layer_k` computes it for them.

    Returns:
        The layer's output for P1 (N, n_p1, C) and its queries (N, heads, n_p1, head_dim), and keys and values
        (N, kv_heads, n_shared, head_dim).
    """
    layer = language.layers[index]
    normed = layer.input_layernorm(hidden)
    keys, values = project_keys(layer.self_attn, normed, rotation)
    text_rotation = (rotation[0][:, n_visual:], rotation[1][:, n_visual:])
    queries = project_queries(layer.self_attn, normed[:, n_visual:], text_rotation)  # (N, heads, n_p1, head_dim)
    n_text = queries.shape[2]
    _, keys, values = language.prepend_system_kv(index, queries, keys, values)
    visible = causal_after(language.n_p0 + n_visual, n_text, language.device)  # (1, 1, n_p1, n_shared)
    attended = attend(queries, keys, values, visible)
    return attention_output_and_mlp(layer, hidden[:, n_visual:], attended), queries, keys, values
