"""Tiles to visual tokens."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import InternVLForConditionalGeneration

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What pixels in 0..1 are normalised by, for each channel: InternVL's only choice."""


class Encoded(NamedTuple):
    """N images of one tile count, as the language model reads them.

    Attributes:
        features: (N, n_visual, C) visual tokens in the model's dtype.
        class_attention: (N, n_visual, heads) float32, see `encode_with_class_attention`; heads = 0 where nobody asks.
    """

    features: Tensor
    class_attention: Tensor


def normalize(tiles: Tensor) -> Tensor:
    """Scale (..., 3, S, S) uint8 to float32 in 0..1, then to ImageNet's mean and deviation.

    The same operations in the same order as torchvision's ToTensor and Normalize, so bit for bit the original's pixels.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=tiles.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=tiles.device).view(3, 1, 1)
    return (tiles.float() / 255 - mean) / std


def encode(model: InternVLForConditionalGeneration, tiles: Tensor) -> Tensor:
    """Visual tokens of images of one tile count: (B, tiles, 3, S, S) uint8 -> (B, n_visual, C) in the model's dtype."""
    pixels = normalize(tiles.to(model.device)).to(model.dtype)
    features = model.get_image_features(pixel_values=pixels.flatten(0, 1)).pooler_output
    return features.reshape(len(tiles), -1, features.shape[-1])


def encode_with_class_attention(model: InternVLForConditionalGeneration, tiles: Tensor) -> Encoded:
    """As ``encode``, and the attention that the class token of every tile pays in the tower's last layer but one.

    A softmax over the class token and all patches, in float32; a visual token has the sum of the patches that pixel
    shuffle puts into it. Queries and keys are the tower's own, and the class token's row is all that is computed anew.
    """
    attention = model.model.vision_tower.encoder.layer[-2:][0].attention  # a tower of a single layer has no other
    with _outputs_of(attention.q_norm, attention.k_norm) as outputs:
        features = encode(model, tiles)
    queries, keys = (
        outputs[norm].unflatten(-1, (attention.num_heads, -1)) for norm in (attention.q_norm, attention.k_norm)
    )
    logits = torch.einsum("thd,tshd->tsh", queries[:, 0], keys) * attention.scale
    patches = logits.softmax(1, dtype=torch.float32)[:, 1:]
    side = math.isqrt(patches.shape[1])
    tokens = model.model.pixel_shuffle(
        patches.reshape(-1, side, side, attention.num_heads), model.config.downsample_ratio
    )
    summed = tokens.unflatten(-1, (-1, attention.num_heads)).sum(-2)
    return Encoded(features, summed.reshape(*features.shape[:2], -1))


@contextmanager
def _outputs_of(*modules: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """What each module puts out while the context is open."""
    outputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[module] = output

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
