"""The prefix: layers 1..K over P0, visual tokens and P1, which all expressions about an image share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.types import Prefix

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.models.internvl.vision import Encoded


class PrefixKind(NamedTuple):
    """What a prefix runs through; methods of equal kind can share one.

    Attributes:
        n_layers: K, the number of layers.
        n_updated: number of layers that update the hidden states of the visual tokens. The later layers only project
            keys and values of the visual tokens.
        runs_text: whether P1 runs through them as well. With a scout, it runs with the suffixes instead.
    """

    n_layers: int
    n_updated: int
    runs_text: bool


def run_prefix(
    language: LanguageModel, after_image: Tensor, images: Encoded, places: Tensor, kind: PrefixKind
) -> Prefix:
    """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

    Args:
        language: the model.
        after_image: (1, n_p1) token ids of P1.
        images: N images.
        places: (N, n_visual, 3), from ``pruning.token_places``.
        kind: what they run through.
    """
    n_images, n_visual, _ = images.features.shape
    text_embeddings = language.embed(after_image)
    text, hidden = text_embeddings.expand(n_images, -1, -1), images.features
    if kind.runs_text:
        hidden = torch.cat([hidden, text], dim=1)  # (N, n_visual + n_p1, C); P0's keys and values are known already
    n_shared = language.n_p0 + n_visual + text.shape[1]
    rotation = language.rotation(
        torch.arange(language.n_p0, language.n_p0 + hidden.shape[1], device=hidden.device)[None]
    )
    keys, values = [], []
    queries = hidden.new_zeros(n_images, 1, text.shape[1], 1)
    for index in range(kind.n_updated):
        hidden, queries, layer_keys, layer_values = language.run_layer(index, hidden, rotation)  # keys: P0 included
        keys.append(layer_keys)
        values.append(layer_values)
    visual = hidden[:, :n_visual]
    if kind.runs_text:
        text = hidden[:, n_visual:]
    frozen = language.normalise_frozen(visual)
    for index in range(kind.n_updated, kind.n_layers):
        if kind.runs_text:
            text, queries, layer_keys, layer_values = language.run_frozen_layer(index, frozen, text, rotation)
        else:
            layer_keys, layer_values = language.project_frozen(index, frozen, rotation)
        keys.append(layer_keys)
        values.append(layer_values)
    return Prefix(
        keys=tuple(keys),
        values=tuple(values),
        visual=visual,
        text=text,
        # A copy, so that the visual tokens' queries are freed.
        text_queries=queries[:, :, -text.shape[1] :].contiguous(),
        embeddings=images.features,
        text_embeddings=text_embeddings,
        n_updated=kind.n_updated,
        places=to_device(places, hidden.device),
        class_attention=images.class_attention,
        vision_keys=images.vision_keys,
        n_shared=n_shared,
    )
