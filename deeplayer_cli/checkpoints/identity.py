"""A short name for what a checkpoint contains, without reading all of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.checkpoints import random_weights
from deeplayer_cli.checkpoints.locate import locate
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_TEXTS = ("*.json", "*.txt", "*.jinja", "tokenizer.model")
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_SAMPLE_WEIGHTS = 64


def identify(name: str, revision: str | None) -> str:
    """Digest of a checkpoint: its small files whole, of each weights file the size, both ends and 64 samples between.

    Two trainings of one architecture differ nearly everywhere, so samples tell them apart; the whole of an 8B model
    would take a minute to read. Random weights are known by their name.

    Args:
        name: see ``load``.
        revision: see ``load``.

    Raises:
        DeeplayerError: there is no such checkpoint, it cannot be had, or cannot be read.
    """
    if name.startswith(random_weights.PREFIX):
        return name
    folder = locate(name, revision)
    digest = hashlib.blake2b(digest_size=8)
    try:
        for path in sorted(path for pattern in _TEXTS for path in folder.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
        for path in sorted(folder.glob("*.safetensors")):
            _sample(path, digest)
    except OSError as error:
        raise DeeplayerError(f"{error.filename} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """Digest of a loaded model's weights: the beginning of each, rounded to bfloat16, so that no dtype changes it."""
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in model.named_parameters():
        beginning = weight.detach().flatten()[:_SAMPLE_WEIGHTS].bfloat16().view(torch.int16).cpu()
        digest.update(name.encode() + beginning.numpy().tobytes())
    return digest.hexdigest()


def _sample(path: Path, digest: hashlib.blake2b) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name} {size}".encode())
    with path.open("rb") as stream:
        for number in range(_SAMPLES + 1):
            stream.seek(max(0, size - _SAMPLE_BYTES) * number // _SAMPLES)
            digest.update(stream.read(_SAMPLE_BYTES))
