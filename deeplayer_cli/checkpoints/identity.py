"""Digests that identify a checkpoint or a loaded model from samples of its weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.checkpoints import random_weights
from deeplayer_cli.checkpoints.locate import locate
from deeplayer_cli.device.packed_linear import plain_weight
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from deeplayer_cli.device.placement import Placement

_TEXTS = ("*.json", "*.txt", "*.jinja", "tokenizer.model")
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_SAMPLE_WEIGHTS = 64


def identify(name: str, revision: str | None, placement: Placement | None = None) -> str:
    """Compute a digest of a checkpoint.

    It covers all small files and, of each weights file, the size and 65 evenly spaced samples of 4 KiB. Reading all of
    an 8B model would take a minute. Samples are enough, because two trained models differ in nearly all weights.

    Args:
        name: see ``load``.
        revision: see ``load``.
        placement: see ``locate``.

    Returns:
        16 hexadecimal digits, or ``name`` itself for random weights.

    Raises:
        DeeplayerError: the checkpoint does not exist, cannot be downloaded, or cannot be read.
    """
    if name.startswith(random_weights.PREFIX):
        return name
    folder = locate(name, revision, placement)
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
    """Compute a digest of a loaded model's weights: 16 hexadecimal digits.

    It covers the first 64 elements of each parameter, rounded to bfloat16, so that it does not depend on the dtype.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in model.named_parameters():
        beginning = plain_weight(weight).flatten()[:_SAMPLE_WEIGHTS].bfloat16().view(torch.int16).cpu()
        digest.update(name.encode() + beginning.numpy().tobytes())
    return digest.hexdigest()


def _sample(path: Path, digest: hashlib.blake2b) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name} {size}".encode())
    with path.open("rb") as stream:
        for number in range(_SAMPLES + 1):
            stream.seek(max(0, size - _SAMPLE_BYTES) * number // _SAMPLES)
            digest.update(stream.read(_SAMPLE_BYTES))
