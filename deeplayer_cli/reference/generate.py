"""Computes greedy answers with transformers' own ``generate()``, from pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.models.internvl.vision import normalize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint


def prompt_ids(checkpoint: Checkpoint, n_visual: int, expression_ids: Sequence[int]) -> list[int]:
    """Token ids of a whole grounding prompt about an image of ``n_visual`` visual tokens."""
    tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
    return [
        *tokenizer.encode(prompt.before_image),
        *[checkpoint.image_token_id] * n_visual,
        *tokenizer.encode_piece(prompt.after_image),
        *expression_ids,
        *tokenizer.encode_piece(prompt.after_expression),
    ]


def generate(checkpoint: Checkpoint, tiles: Tensor, expression_ids: Sequence[int], n_new: int) -> list[int]:
    """Answer one expression with greedy ``generate()``.

    Args:
        checkpoint: the model.
        tiles: (tiles, 3, side, side) uint8, one image.
        expression_ids: token ids of the expression.
        n_new: the largest number of tokens of the answer.

    Returns:
        Token ids of the answer, at least one, without the token that ends it.
    """
    model = checkpoint.model
    tiles = tiles.to(model.device)
    ids = prompt_ids(checkpoint, len(tiles) * checkpoint.tokens_per_tile, expression_ids)
    input_ids = torch.tensor([ids], device=model.device)
    generated: list[int] = model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        pixel_values=normalize(tiles).to(model.dtype),
        max_new_tokens=n_new,
        min_new_tokens=1,
        do_sample=False,
        eos_token_id=checkpoint.eos_id,
        pad_token_id=checkpoint.eos_id,
    )[0, len(ids) :].tolist()
    return generated[: generated.index(checkpoint.eos_id)] if checkpoint.eos_id in generated else generated
