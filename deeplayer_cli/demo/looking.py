"""Where the model looks: the share of its attention to the image that falls on the object that is meant."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.demo.scenes import CURVE_SEEDS, pick, scene
from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.tiling import tile_grid, tile_image
from deeplayer_cli.pruning import AttentionScorer, Budget, Method, Stage, StageShare, token_places
from deeplayer_cli.runtime.calibrate import RecordScores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image
    from torch import Tensor

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.demo.scenes import Scene
    from deeplayer_cli.models.internvl.vision import Encoded
    from deeplayer_cli.pruning import QueryRowKind

_EXPRESSIONS = 4  # per scene
_CHOOSING = 8  # scenes that choose a layer


@dataclass(frozen=True)
class Look:
    """One layer's attention to the visual tokens, averaged over expressions.

    Attributes:
        layer: 1-based.
        last: share on the target of what the last prompt token attends to in the image.
        drafted: the same of the token before the first coordinate, the answer's beginning being given.
    """

    layer: int
    last: float
    drafted: float


def looks(checkpoint: Checkpoint, scenes: Iterable[Scene]) -> tuple[float, list[Look]]:
    """Look at scenes, for up to four expressions of each.

    Returns:
        The mean share of visual tokens that lie on the target, which attention without aim would give, and every layer
        but the last.
    """
    areas, layers = [], range(1, checkpoint.model.config.text_config.num_hidden_layers)
    probes = {(layer, rows): _Probe(checkpoint, layer, rows) for layer in layers for rows in ("last", "drafted")}
    encoder = Engine(checkpoint, Method("none"))
    found: dict[tuple[int, str], list[float]] = {key: [] for key in probes}
    for one in scenes:
        referrals = list(islice(one.referrals, _EXPRESSIONS))
        tiles = torch.from_numpy(tile_image(one.image, checkpoint.tiling))[None]
        targets = [_tokens_on(referral.box, one.image, tiles.shape[1], checkpoint) for referral in referrals]
        encoded = encoder.encode(tiles)
        areas += [target.float().mean().item() for target in targets]
        for key, probe in probes.items():
            scores = probe(encoded, [referral.expression for referral in referrals])
            found[key] += [(row[target].sum() / row.sum()).item() for row, target in zip(scores, targets, strict=True)]
    mean = {key: sum(shares) / len(shares) for key, shares in found.items()}
    return sum(areas) / len(areas), [Look(layer, mean[layer, "last"], mean[layer, "drafted"]) for layer in layers]


def grounding_layer(checkpoint: Checkpoint) -> int:
    """The layer, from 1, where the last prompt token looks most at what is meant, on scenes of the training curve."""
    _, layers = looks(checkpoint, map(scene, pick(CURVE_SEEDS, 0, _CHOOSING)))
    return max(layers, key=lambda one: one.last).layer


class _Probe:
    """Reads one layer's scores as pruning by them would."""

    def __init__(self, checkpoint: Checkpoint, layer: int, rows: QueryRowKind) -> None:
        self._checkpoint, self._seen = checkpoint, RecordScores()
        method = Method("probe", (Stage(layer, AttentionScorer(rows), self._seen, StageShare(Budget(tokens=1))),))
        self._engine = Engine(checkpoint, method, draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer))

    def __call__(self, image: Encoded, expressions: Sequence[str]) -> Tensor:
        """Scores (B, n_visual) of expressions about one image."""
        rows = [Row(0, self._checkpoint.tokenizer.encode_expression(text)) for text in expressions]
        self._engine.prefill(self._engine.prefix(image), rows, 100)
        assert self._seen.scores is not None  # noqa: S101 - a prefill that prunes has selected
        return self._seen.scores


def _tokens_on(box: Box, image: Image.Image, n_tiles: int, checkpoint: Checkpoint) -> Tensor:
    """(n_visual,) bool: whose centres lie within a box in pixels."""
    columns, rows = grid = tile_grid(image.size, checkpoint.tiling)
    side = checkpoint.tokens_per_tile**0.5
    x, y, level = token_places(grid, n_tiles, n_tiles * checkpoint.tokens_per_tile).unbind(-1)
    x, y = (
        line / (side * torch.where(level == 0, tiles, 1)) * length
        for line, tiles, length in ((x, columns, image.width), (y, rows, image.height))
    )
    left, top, right, bottom = box
    return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
