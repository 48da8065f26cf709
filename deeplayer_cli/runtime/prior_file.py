"""Priors on disk: a file records what its prior depends on, and is read only for the model that it was made with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from deeplayer_cli.checkpoints.identity import fingerprint
from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.pruning import Prior
from deeplayer_cli.runtime.calibrate import QUESTION
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deeplayer_cli.checkpoints import Checkpoint

_FORMAT = "deeplayer prior 1"


def prior_digest(path: Path) -> str:
    """Return a short hash of a prior file.

    Raises:
        DeeplayerError: the file cannot be read.
    """
    with reading(str(path)):
        return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def save_prior(prior: Prior, path: Path, checkpoint: Checkpoint, n_images: int, *, together: bool = False) -> None:
    """Write a prior with a record of everything that it depends on; arguments as for `calibrate`.

    Raises:
        DeeplayerError: the file cannot be written.
    """
    metadata = {
        "format": _FORMAT,
        "fingerprint": fingerprint(checkpoint.model),
        "model": checkpoint.name,
        "layer": str(prior.layer),
        "question": QUESTION,
        "images": str(n_images),
        "tiles": "together" if together else "apart",
        "max_tiles": str(checkpoint.tiling.max_tiles),
    }
    # safetensors' save_file puts a file of mode 600 in the place of whatever is there, also of a pipe or a device.
    content = save({"tile": prior.tile, "whole": prior.whole}, metadata)
    with replacing(path) as partial:
        partial.write_bytes(content)


def load_prior(path: Path, checkpoint: Checkpoint) -> Prior:
    """Read a prior for a model.

    Raises:
        DeeplayerError: the file cannot be read, is not a prior, or was made with another model.
    """
    prior, metadata = read_prior(path)
    if metadata["fingerprint"] != fingerprint(checkpoint.model):
        raise DeeplayerError(
            f"{path} was made with {metadata['model']}, whose weights are not those of {checkpoint.name}: a prior fits "
            "one model only; run `deeplayer calibrate` with this model"
        )
    return prior


def read_prior(path: Path) -> tuple[Prior, Mapping[str, str]]:
    """Read a prior for whatever model, and what it depends on; see `save_prior`.

    Raises:
        DeeplayerError: the file cannot be read, or is not a prior.
    """
    no_prior = f"{path} is not a prior, or is damaged: make one with `deeplayer calibrate`"
    with reading(str(path)):
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise DeeplayerError(no_prior)
    try:
        with reading(str(path)), safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DeeplayerError(no_prior)
            return Prior(file.get_tensor("tile"), file.get_tensor("whole"), int(metadata["layer"])), metadata
    except (SafetensorError, KeyError, ValueError) as error:
        raise DeeplayerError(no_prior) from error
