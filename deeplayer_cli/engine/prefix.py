"""Layers 1..K over what all expressions of an image share: P0, visual tokens, P1."""

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
"""How many layers the tokens of an image share, and whether the last of these is deferred: what prefixes differ in."""


def prefix_kind(method: Method, n_layers: int, n_visual: int) -> PrefixKind:
    """What a method makes of an image of ``n_visual`` tokens in a model of ``n_layers`` decoder layers.

    Where nothing is dropped, only keys and values are needed of the last layer.
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
        images: N of them.
        places: (N, n_visual, 3), from ``pruning.token_places``.
        kind: of the prefix.
    """
    n_images, n_visual, _ = images.features.shape
    n_layers, is_deferred = kind
    hidden = torch.cat([images.features, language.embed(after_image).expand(n_images, -1, -1)], dim=1)
    n_shared = language.n_p0 + hidden.shape[1]
    rotation = language.rotation(torch.arange(language.n_p0, n_shared, device=language.device)[None])
    keys, values = [], []
    for index in range(n_layers - is_deferred):
        hidden, _, layer_keys, layer_values = language.run_layer(index, hidden, rotation)
        keys.append(layer_keys)
        values.append(layer_values)
    visual, text = hidden[:, :n_visual], hidden[:, n_visual:]
    if is_deferred:
        text, layer_keys, layer_values = _defer_layer(language, n_layers - 1, hidden, n_visual, rotation)
        keys.append(layer_keys)
        values.append(layer_values)
    return Prefix(
        tuple(keys),
        tuple(values),
        visual,
        text,
        is_deferred,
        places.to(hidden.device),
        images.class_attention,
        n_shared,
    )


def _defer_layer(
    language: LanguageModel, index: int, hidden: Tensor, n_visual: int, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """P1's output of a layer (N, n_p1, C), and all its keys and values.

    Of the visual tokens, only those that are kept run through the rest of it, later.
    """
    layer = language.layers[index]
    normed = layer.input_layernorm(hidden)
    keys, values = project_keys(layer.self_attn, normed, rotation)
    text_rotation = (rotation[0][:, n_visual:], rotation[1][:, n_visual:])
    queries = project_queries(layer.self_attn, normed[:, n_visual:], text_rotation)  # (N, heads, n_p1, head_dim)
    n_text = queries.shape[2]
    _, keys, values = language.prepend_system_kv(index, queries, keys, values)
    visible = causal_after(language.n_p0 + n_visual, n_text, language.device)
    attended = attend(queries, keys, values, visible)
    return attention_output_and_mlp(layer, hidden[:, n_visual:], attended), keys, values
