"""Make a prior: a layer's attention at each position, averaged over images (D2Pruner, arXiv:2512.19443)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from deeplayer_cli import pruning
from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.tiling import tile_grid, tile_image
from deeplayer_cli.pruning import AttentionScorer, Budget, Method, Prior, Selector, Stage, StageShare

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image
    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.pruning import ScorerInputs

QUESTION = "Please describe the provided image."
"""The neutral question of all priors, which is about no part of an image."""


@dataclass
class _Mean:
    """A running mean of vectors."""

    total: Tensor
    count: int = 0

    def add(self, vectors: Tensor) -> None:
        self.total += vectors.sum(0)
        self.count += len(vectors)


class RecordScores(Selector):
    """A selector that records the scores, and keeps the first tokens."""

    def __init__(self) -> None:
        self.scores: Tensor | None = None

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Record ``scores``, (B, n_visual), and return the indices of the first tokens, (B, n_keep)."""
        self.scores = scores
        return torch.arange(n_keep, device=scores.device).expand(len(scores), -1)


def calibrate(checkpoint: Checkpoint, images: Iterable[Image.Image], layer: int, *, together: bool = False) -> Prior:
    """Average a layer's attention over images, with `QUESTION` about each.

    By default, attention counts in units of an image's mean attention, and tiles and thumbnails have a mean of their
    own. ``together`` makes the prior of clawRxiv 2604.00591 instead: one mean of the attention as it is, over all tiles
    of all images, thumbnails included.

    Args:
        checkpoint: the model.
        images: at least one, RGB.
        layer: decoder layer, counted from 1; not the last one.
        together: one mean for tiles and thumbnails.

    Raises:
        DeeplayerError: no image was given, the model has no such layer, or the layer is the last.
    """
    record = RecordScores()
    stage = Stage(layer, AttentionScorer(), record, StageShare(Budget(tokens=1)))
    pruning.check_layer(stage, checkpoint.model.config.text_config.num_hidden_layers)
    with_question = replace(checkpoint, prompt=checkpoint.prompt.with_question(QUESTION))
    engine = Engine(with_question, Method("calibrate", (stage,)))
    tile, whole = (_Mean(torch.zeros(checkpoint.tokens_per_tile)) for _ in range(2))
    for image in images:
        tiles = torch.from_numpy(tile_image(image, checkpoint.tiling))[None]
        engine.prefill(engine.prefix(engine.encode(tiles)), [Row(0, ())], 1)
        assert record.scores is not None  # noqa: S101 - a prefill that prunes has selected
        scores = record.scores[0].float().cpu()
        by_tile = scores.view(tiles.shape[1], -1)
        if together:
            whole.add(by_tile)
            continue
        by_tile = by_tile * len(scores)
        columns, rows = tile_grid(image.size, checkpoint.tiling)
        if columns * rows > 1:
            tile.add(by_tile[: columns * rows])
        whole.add(by_tile[-1:])
    if not whole.count:
        raise DeeplayerError("no image could be read: give at least one readable image")
    mean = whole.total / whole.count
    return Prior(tile.total / tile.count if tile.count else mean.clone(), mean, layer)
