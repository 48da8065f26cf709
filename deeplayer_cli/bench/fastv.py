"""FastV as it is usually written, for comparison: eager attention builds a full attention matrix in every layer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.models.internvl.vision import normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from deeplayer_cli.models.internvl.model import Model


@torch.inference_mode()
def first_token(
    model: Model,
    ids: Sequence[int],
    tiles: Tensor,
    layer: int,
    n_keep: int,
    image_token: int,
) -> int:
    """Compute the first token of an answer, and keep only ``n_keep`` visual tokens after one layer.

    The layers are transformers' own. The score is the attention from the last prompt token in that layer, as a mean
    over heads (Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2", arXiv:2403.06764). Position ids do not
    change.

    Args:
        model: the whole model.
        ids: token ids of the prompt.
        tiles: (tiles, 3, side, side) uint8, one image, on the model's device.
        layer: the layer to drop after, counted from 1.
        n_keep: number of visual tokens to keep.
        image_token: the token id that stands for a visual token in ``ids``.
    """
    decoder = model.model.language_model
    prompt = torch.tensor([list(ids)], device=tiles.device)
    features = model.model.get_image_features(pixel_values=normalize(tiles).to(model.dtype)).pooler_output
    hidden = decoder.embed_tokens(prompt)
    visual = (prompt[0] == image_token).nonzero()[:, 0]
    hidden[0, visual] = features.flatten(0, 1)
    left = torch.arange(len(ids), device=prompt.device)
    with _eager(model), _listening(decoder.layers[layer - 1].self_attn) as attentions:
        for index, block in enumerate(decoder.layers):
            if index == layer:
                scores = attentions[0][0, :, -1, visual].float().mean(0)
                kept = visual[scores.argsort(descending=True, stable=True)[:n_keep]]
                text = (prompt[0] != image_token).nonzero()[:, 0]
                left = torch.cat([text, kept]).sort().values
                hidden = hidden[:, left]
            lowest = torch.finfo(hidden.dtype).min
            mask = hidden.new_full((len(left), len(left)), lowest).triu(1)
            hidden = block(
                hidden,
                attention_mask=mask[None, None],
                position_embeddings=decoder.rotary_emb(hidden, left[None]),
            )
    return int(model.lm_head(decoder.norm(hidden[0, -1])).argmax())


@contextmanager
def _eager(model: Model) -> Iterator[None]:
    before = model.config.text_config._attn_implementation  # transformers has no public name for it
    model.set_attn_implementation({"text_config": "eager"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": before})


@contextmanager
def _listening(attention: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights (1, heads, T, T) of each call of an attention module."""
    heard: list[Tensor] = []
    hook = attention.register_forward_hook(lambda module, args, output: heard.append(output[1]))
    try:
        yield heard
    finally:
        hook.remove()
