"""Models with random weights in the exact shapes of published models, to measure speed without the checkpoint.

Their answers are meaningless. Tokenizer and prompt are those of the demo, so a prompt has about as many tokens as that
of the published model, but other tokens.
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
from deeplayer_cli.errors import DeeplayerError, did_you_mean
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT
from deeplayer_cli.models.internvl.tiling import Tiling

if TYPE_CHECKING:
    from torch import nn

PREFIX = "random:"
_STD = 0.02


def read(name: str) -> Layout:
    """Describe the model ``random:SIZE``.

    Args:
        name: ``random:`` and the name of a size in ``sizes.py``.

    Raises:
        DeeplayerError: the size does not exist, or the demo's tokenizer is missing.
    """
    sizes = {f"{PREFIX}{size.name}": size for size in (*SIZES, MINI)}
    if name not in sizes:
        raise DeeplayerError(f"unknown model {name!r}: choose {', '.join(sizes)}{did_you_mean(name, sizes)}")
    folder = locate(DEMO, None)
    tokenizer = FastTokenizer.read(folder)
    config = internvl_config(sizes[name].original_config(), tokenizer.token_id(IMAGE_CONTEXT))
    return Layout(config, tokenizer, read_prompt(folder, tokenizer), Tiling(), rules=())


def fill(model: nn.Module, device: torch.device) -> None:
    """Fill a model on the ``meta`` device with random weights, drawn on ``device`` from a fixed seed.

    Weights of norms are 1. All other parameters are normal with standard deviation 0.02, so activations stay finite in
    all layers.

    Args:
        model: model with parameters on the ``meta`` device.
        device: device of the new parameters.
    """
    generator = torch.Generator(device).manual_seed(0)
    for name, _ in list(model.named_parameters()):
        parameter = materialise(model, name, device)
        if "norm" in name and name.endswith(".weight"):
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=_STD, generator=generator)
