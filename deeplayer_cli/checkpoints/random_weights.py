"""Random weights in the exact shape of a published model, for measuring speed where the checkpoint is not at hand.

The answers mean nothing. Tokenizer and prompt are the demo's, so a prompt has about as many tokens as the real one but
not the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.checkpoints.layout import Layout
from deeplayer_cli.checkpoints.locate import DEMO, locate
from deeplayer_cli.checkpoints.native import read_prompt
from deeplayer_cli.checkpoints.original import internvl_config
from deeplayer_cli.checkpoints.sizes import MINI, SIZES
from deeplayer_cli.checkpoints.tokenizer import FastTokenizer
from deeplayer_cli.checkpoints.weights import materialise
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT
from deeplayer_cli.models.internvl.tiling import Tiling

if TYPE_CHECKING:
    from torch import nn

PREFIX = "random:"
_STD = 0.02


def read(name: str) -> Layout:
    """Describe ``random:SIZE``.

    Raises:
        DeeplayerError: no such size, or the demo's tokenizer is missing.
    """
    sizes = {f"{PREFIX}{size.name}": size for size in (*SIZES, MINI)}
    if name not in sizes:
        raise DeeplayerError(f"unknown model {name!r}: choose {', '.join(sizes)}")
    folder = locate(DEMO, None)
    tokenizer = FastTokenizer.read(folder)
    config = internvl_config(sizes[name].original_config(), tokenizer.token_id(IMAGE_CONTEXT))
    return Layout(config, tokenizer, read_prompt(folder, tokenizer), Tiling(), rules=())


def fill(model: nn.Module, device: torch.device) -> None:
    """Give a model on the ``meta`` device the same random weights every time, drawn on ``device`` itself.

    Norms scale by one and everything else is normal, so activations stay finite through all layers.
    """
    generator = torch.Generator(device).manual_seed(0)
    for name, _ in list(model.named_parameters()):
        parameter = materialise(model, name, device)
        if "norm" in name and name.endswith(".weight"):
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=_STD, generator=generator)
