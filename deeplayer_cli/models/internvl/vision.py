"""Encode tiles into visual tokens."""

from __future__ import annotations

import math
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from deeplayer_cli.device import blocked_attention
from deeplayer_cli.device.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from torch import Tensor, nn
    from transformers import InternVLForConditionalGeneration

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each channel, for pixels in 0..1. InternVL always normalises with these."""

_BLOCKED = "deeplayer_blocked"

# Of the tiles that go through the tower together on a CPU, unless one has more. The wide states of more would take new
# memory in every layer, whose pages the system has to clear.
_PATCHES = 1024


class Encoded(NamedTuple):
    """The visual tokens of N images with the same number of tiles.

    Attributes:
        features: (N, n_visual, C) visual tokens in the model's dtype.
        class_attention: (N, n_visual, heads) float32, see `encode_with_attention`; heads is 0 if not computed.
        vision_keys: (N, n_visual, head_dim) in the model's dtype, see `encode_with_attention`; head_dim is 0 if not
            computed.
    """

    features: Tensor
    class_attention: Tensor
    vision_keys: Tensor


def use_blocked_attention(model: InternVLForConditionalGeneration) -> None:
    """Let the vision tower of a model attend by blocks of queries wherever `blocked_attention` serves."""
    AttentionInterface.register(_BLOCKED, _attend)
    model.set_attn_implementation({"vision_config": _BLOCKED})


def normalize(tiles: Tensor) -> Tensor:
    """Scale pixels to 0..1, then normalise them with ImageNet's mean and standard deviation.

    The operations and their order are those of torchvision's ToTensor and Normalize, so the pixels are bit-identical to
    those of the original code.

    Args:
        tiles: (..., 3, S, S) uint8.

    Returns:
        (..., 3, S, S) float32.
    """
    mean = to_device(IMAGENET_MEAN, tiles.device).view(3, 1, 1)
    std = to_device(IMAGENET_STD, tiles.device).view(3, 1, 1)
    return tiles.float().div_(255).sub_(mean).div_(std)  # in place: a CPU is slow to get memory


def encode(model: InternVLForConditionalGeneration, tiles: Tensor) -> Tensor:
    """Encode the tiles of B images into visual tokens.

    Args:
        model: the model; the tiles are moved to its device.
        tiles: (B, tiles, 3, S, S) uint8; all images have the same number of tiles.

    Returns:
        (B, n_visual, C) in the model's dtype.
    """
    return _of_images([_encode(model, part) for part in _parts(model, tiles)], len(tiles))


def encode_with_attention(model: InternVLForConditionalGeneration, tiles: Tensor) -> Encoded:
    """Encode tiles as ``encode`` does, and read the keys of the visual tokens and the class token's attention to them.

    Both are those of the second-to-last layer of the vision tower; of the only layer if the tower has just one. The
    attention is a softmax over the class token and all patches, in float32; that of a visual token is the sum over the
    patches that pixel shuffle merges into it. A key is a mean over heads; that of a visual token is the mean over its
    patches. Queries and keys are taken from the tower's forward pass; only the attention row of the class token is
    computed again.

    Args:
        model: the model; the tiles are moved to its device.
        tiles: (B, tiles, 3, S, S) uint8; all images have the same number of tiles.
    """
    parts = [_encode_with_attention(model, part) for part in _parts(model, tiles)]
    return Encoded(*(_of_images(of_parts, len(tiles)) for of_parts in zip(*parts, strict=True)))


def _parts(model: InternVLForConditionalGeneration, tiles: Tensor) -> Sequence[Tensor]:
    """The tiles (n, 3, S, S) that go through the tower together: all of them, but few on a CPU."""
    flat = tiles.flatten(0, 1)
    if model.device.type != "cpu":
        return (flat,)
    rows, columns = (flat.shape[-1] // side for side in model.config.vision_config.patch_size)
    return flat.split(max(1, _PATCHES // (rows * columns)))


def _of_images(parts: Sequence[Tensor], n_images: int) -> Tensor:
    """Put what parts hold of their visual tokens, (n, tokens, D) each, together: (n_images, n_visual, D)."""
    whole = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    return whole.reshape(n_images, -1, whole.shape[-1])


def _encode(model: InternVLForConditionalGeneration, tiles: Tensor) -> Tensor:
    """Encode tiles (n, 3, S, S) into their visual tokens (n, tokens, C)."""
    pixels = normalize(to_device(tiles, model.device)).to(model.dtype)
    features: Tensor = model.get_image_features(pixel_values=pixels).pooler_output
    return features.reshape(len(tiles), -1, features.shape[-1])


def _encode_with_attention(model: InternVLForConditionalGeneration, tiles: Tensor) -> Encoded:
    """As `encode_with_attention`, of tiles (n, 3, S, S), each as an image of its own."""
    attention = model.model.vision_tower.encoder.layer[-2:][0].attention  # a tower with one layer has only that
    with _outputs_of(attention.q_norm, attention.k_norm) as outputs:
        features = _encode(model, tiles)
    queries, keys = (
        outputs[norm].unflatten(-1, (attention.num_heads, -1)) for norm in (attention.q_norm, attention.k_norm)
    )
    logits = torch.einsum("thd,tshd->tsh", queries[:, 0], keys) * attention.scale
    patches = logits.softmax(1, dtype=torch.float32)[:, 1:]
    by_token = _patches_of_tokens(model, patches).sum(-2)
    vision_keys = _patches_of_tokens(model, keys[:, 1:].mean(2)).mean(-2)
    return Encoded(features, *(part.reshape(*features.shape[:2], -1) for part in (by_token, vision_keys)))


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of all patches to all, as transformers calls it; returns (tiles, patches, heads, head_dim)."""
    if not blocked_attention.serves(query, key):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return blocked_attention.attention(query, key, value).transpose(1, 2), None


def _patches_of_tokens(model: InternVLForConditionalGeneration, patches: Tensor) -> Tensor:
    """Group what patches hold, (tiles, patches, D), by the visual token that pixel shuffle merges them into.

    Returns:
        (tiles, rows of tokens, columns of tokens, patches of a token, D).
    """
    side, width = math.isqrt(patches.shape[1]), patches.shape[2]
    shuffled: Tensor = model.model.pixel_shuffle(patches.reshape(-1, side, side, width), model.config.downsample_ratio)
    return shuffled.unflatten(-1, (-1, width))


@contextmanager
def _outputs_of(*modules: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """Record the last output of each module inside the ``with`` block, in this thread."""
    outputs: dict[nn.Module, Tensor] = {}
    own = get_ident()

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        if get_ident() == own:  # other threads may run the same modules
            outputs[module] = output

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
