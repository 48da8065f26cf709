"""Tiles to visual tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.imaging import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import InternVLForConditionalGeneration


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
