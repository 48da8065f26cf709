"""Inputs for scorers and selectors, made by hand."""

from __future__ import annotations

import torch

from deeplayer_cli.pruning import ScorerInputs

START, N_TEXT = 2, 7


def inputs_of(features: torch.Tensor, places: torch.Tensor, seed: int = 0) -> ScorerInputs:
    """Random keys and text around what is given; the second prompt's last tokens are padding."""
    batch, n_visual, _ = places.shape
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(batch, 2, START + n_visual + N_TEXT, 4, generator=generator)
    prompt_tokens = torch.ones(batch, keys.shape[2], dtype=torch.bool)
    prompt_tokens[1:, -2:] = False
    return ScorerInputs(
        torch.arange(batch),
        START,
        n_visual,
        prompt_tokens,
        keys=keys,
        features=features,
        text_features=torch.randn(batch, N_TEXT, features.shape[-1], generator=generator),
        places=places,
    )
