"""Small inputs for scorers and selectors."""

from __future__ import annotations

import torch

from deeplayer_cli.pruning import ScorerInputs

START, N_TEXT = 2, 7


def inputs_of(features: torch.Tensor, places: torch.Tensor, seed: int = 0) -> ScorerInputs:
    """Add random keys and text to features and places; the last two tokens of all prompts but the first are padding."""
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
