"""D2Pruner's prior: made from images, kept in a file, and used with the model and layer that it was made with only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from deeplayer_cli import pruning
from deeplayer_cli.checkpoints.identity import fingerprint
from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.imaging import tile_grid, tile_image
from deeplayer_cli.pruning import AttentionScorer, Budget, Method, Prior, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.pruning import Evidence

QUESTION = "Please describe the provided image."
_FORMAT = "deeplayer prior 1"


def digest(path: Path) -> str:
    """A short name for a prior's content.

    Raises:
        DeeplayerError: the file cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise DeeplayerError(f"{path} cannot be read: {error.strerror}") from error


@dataclass
class _Mean:
    """A running mean of vectors."""

    total: Tensor
    count: int = 0

    def add(self, vectors: Tensor) -> None:
        self.total += vectors.sum(0)
        self.count += len(vectors)


class _Remember:
    """A selector that only remembers the scores it is given."""

    needs_features = False
    compilable = False

    def __init__(self) -> None:
        self.scores: Tensor | None = None

    def __call__(self, scores: Tensor, evidence: Evidence, n_keep: int) -> Tensor:
        del evidence
        self.scores = scores
        return torch.arange(n_keep, device=scores.device).expand(len(scores), -1)


def calibrate(checkpoint: Checkpoint, images: Iterable[Image.Image], layer: int, question: str = QUESTION) -> Prior:
    """Average a layer's attention over images, all asked the same.

    Args:
        checkpoint: the model.
        images: at least one, RGB.
        layer: 1-based.
        question: asks for nothing in particular.

    Raises:
        DeeplayerError: there is no image, or the model has no such layer, or it is the last.
    """
    remember = _Remember()
    stage = Stage(layer, AttentionScorer(), remember, Budget(tokens=1))
    pruning.check_layer(stage, checkpoint.model.config.text_config.num_hidden_layers)
    asking = replace(checkpoint, prompt=checkpoint.prompt.with_question(question))
    engine = Engine(asking, Method("calibrate", (stage,)))
    tile, whole = (_Mean(torch.zeros(checkpoint.tokens_per_tile)) for _ in range(2))
    for image in images:
        tiles = torch.from_numpy(tile_image(image, checkpoint.tiling))[None]
        engine.prefill(engine.prefix(engine.encode(tiles)), [Row(0, ())], 1)
        assert remember.scores is not None  # noqa: S101 - a prefill that prunes has selected
        scores = remember.scores[0].float().cpu()
        by_tile = (scores * len(scores)).view(tiles.shape[1], -1)
        columns, rows = tile_grid(image.size, checkpoint.tiling)
        if columns * rows > 1:
            tile.add(by_tile[: columns * rows])
        whole.add(by_tile[-1:])
    if not whole.count:
        raise DeeplayerError("no image could be read: there is nothing to calibrate with")
    mean = whole.total / whole.count
    return Prior(tile.total / tile.count if tile.count else mean.clone(), mean, layer)


def save(prior: Prior, path: Path, checkpoint: Checkpoint, n_images: int, question: str = QUESTION) -> None:
    """Write a prior with all that it depends on.

    Raises:
        DeeplayerError: the system refuses.
    """
    metadata = {
        "format": _FORMAT,
        "fingerprint": fingerprint(checkpoint.model),
        "model": checkpoint.name,
        "layer": str(prior.layer),
        "question": question,
        "images": str(n_images),
        "max_tiles": str(checkpoint.tiling.max_tiles),
    }
    try:
        save_file({"tile": prior.tile, "whole": prior.whole}, path, metadata)
    except (OSError, SafetensorError) as error:
        raise DeeplayerError(f"{path} cannot be written: {error}") from error


def load(path: Path, checkpoint: Checkpoint) -> Prior:
    """Read a prior for a model.

    Raises:
        DeeplayerError: the file cannot be read, is no prior, or was made with another model.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DeeplayerError(f"{path} is no prior: make one with `deeplayer calibrate`")
            prior = Prior(file.get_tensor("tile"), file.get_tensor("whole"), int(metadata["layer"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DeeplayerError(f"{path} cannot be read: {error}") from error
    if metadata["fingerprint"] != fingerprint(checkpoint.model):
        raise DeeplayerError(
            f"{path} was made with {metadata['model']}, whose weights are not those of {checkpoint.name}: attention by "
            "place is a model's own; run `deeplayer calibrate` with this one"
        )
    return prior
