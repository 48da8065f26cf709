"""Attention to the target: the share of a layer's attention to the visual tokens that falls on the right object."""

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
_CHOOSING = 8  # scenes that ``grounding_layer`` measures on


@dataclass(frozen=True)
class Look:
    """The share of a layer's attention to visual tokens that falls on the target, averaged over expressions.

    The target is the object that the expression refers to. Shares are from 0 to 1.

    Attributes:
        layer: number of the decoder layer, from 1.
        last: share for the last prompt token.
        drafted: share for the token before the first coordinate; the beginning of the answer is given as a draft.
    """

    layer: int
    last: float
    drafted: float


def looks(checkpoint: Checkpoint, scenes: Iterable[Scene]) -> tuple[float, list[Look]]:
    """Measure the attention to the target, for up to four expressions of each scene.

    Args:
        checkpoint: the model to measure.
        scenes: the scenes; together they need at least one expression.

    Returns:
        The mean share of visual tokens that lie on the target, which is the share that uniform attention would have,
        and one ``Look`` for every decoder layer except the last.
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
    """Return the layer (from 1) whose last prompt token has the largest share of attention on the target.

    It is measured on 8 scenes of the training curve.
    """
    _, layers = looks(checkpoint, map(scene, pick(CURVE_SEEDS, 0, _CHOOSING)))
    return max(layers, key=lambda one: one.last).layer


class _Probe:
    """Reads the attention scores of one layer, as a pruning method at that layer does."""

    def __init__(self, checkpoint: Checkpoint, layer: int, rows: QueryRowKind) -> None:
        self._checkpoint, self._seen = checkpoint, RecordScores()
        method = Method("probe", (Stage(layer, AttentionScorer(rows), self._seen, StageShare(Budget(tokens=1))),))
        self._engine = Engine(checkpoint, method, draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer))

    def __call__(self, image: Encoded, expressions: Sequence[str]) -> Tensor:
        """Return the scores [B, n_visual] of the visual tokens, for B expressions about one image."""
        rows = [Row(0, self._checkpoint.tokenizer.encode_expression(text)) for text in expressions]
        self._engine.prefill(self._engine.prefix(image), rows, 100)
        assert self._seen.scores is not None  # noqa: S101 - prefill with a pruning method always selects
        return self._seen.scores


def _tokens_on(box: Box, image: Image.Image, n_tiles: int, checkpoint: Checkpoint) -> Tensor:
    """Return a mask [n_visual] bool of the visual tokens whose centres lie in ``box``, xyxy in pixels."""
    columns, rows = grid = tile_grid(image.size, checkpoint.tiling)
    side = checkpoint.tokens_per_tile**0.5
    x, y, level = token_places(grid, n_tiles, n_tiles * checkpoint.tokens_per_tile).unbind(-1)
    x, y = (
        line / (side * torch.where(level == 0, tiles, 1)) * length
        for line, tiles, length in ((x, columns, image.width), (y, rows, image.height))
    )
    left, top, right, bottom = box
    return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
