"""Evidence for selectors, made by hand."""

from __future__ import annotations

import torch

from deeplayer_cli.pruning import Evidence

START, N_TEXT = 2, 7


def evidence_of(features: torch.Tensor, places: torch.Tensor, seed: int = 0) -> Evidence:
    """Random keys and text around what is given; the second prompt's last tokens are padding."""
    batch, n_visual, _ = places.shape
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(batch, 2, START + n_visual + N_TEXT, 4, generator=generator)
    visible = torch.ones(batch, 1, keys.shape[2], dtype=torch.bool)
    visible[1:, :, -2:] = False
    return Evidence(
        torch.empty(batch, 2, 1, 4),
        keys,
        visible,
        torch.arange(batch),
        START,
        n_visual,
        features=features,
        text_features=torch.randn(batch, N_TEXT, features.shape[-1], generator=generator),
        places=places,
        class_attention=torch.empty(batch, n_visual, 0),
    )
