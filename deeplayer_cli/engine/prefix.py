"""The prefix: layers 1..K over P0, visual tokens and P1, which all expressions about an image share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.types import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.models.internvl.vision import Encoded

PrefixKind = tuple[int, int]
"""K, the number of layers that a prefix runs through, and in how many of them it updates the visual tokens."""


def run_prefix(
    language: LanguageModel, after_image: Tensor, images: Encoded, places: Tensor, kind: PrefixKind
) -> Prefix:
    """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

    Args:
        language: the model.
        after_image: (1, n_p1) token ids of P1.
        images: N images.
        places: (N, n_visual, 3), from ``pruning.token_places``.
        kind: K, and the number of layers that update the hidden states of the visual tokens. The later layers only
            project keys and values of the visual tokens.
    """
    n_images, n_visual, _ = images.features.shape
    n_layers, n_updated = kind
    # (N, n_visual + n_p1, C); the keys and values of P0 are known already.
    text_embeddings = language.embed(after_image)
    hidden = torch.cat([images.features, text_embeddings.expand(n_images, -1, -1)], dim=1)
    n_shared = language.n_p0 + hidden.shape[1]
    rotation = language.rotation(torch.arange(language.n_p0, n_shared, device=language.device)[None])
    keys, values = [], []
    queries = hidden.new_empty(n_images, 1, text_embeddings.shape[1], 1)
    for index in range(n_updated):
        hidden, queries, layer_keys, layer_values = language.run_layer(index, hidden, rotation)  # keys: P0 included
        keys.append(layer_keys)
        values.append(layer_values)
    visual, text = hidden[:, :n_visual], hidden[:, n_visual:]
    frozen = language.normalise_frozen(visual)
    for index in range(n_updated, n_layers):
        text, queries, layer_keys, layer_values = language.run_frozen_layer(index, frozen, text, rotation)
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
        n_updated,
        to_device(places, hidden.device),
        images.class_attention,
        images.vision_keys,
        n_shared,
    )
