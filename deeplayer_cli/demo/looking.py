"""Attention to the target: the share of a layer's attention to the visual tokens that falls on the right object."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.demo.scenes import CURVE_SEEDS, pick, scene
from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.tiling import tile_grid, tile_image
from deeplayer_cli.pruning import Method, token_places, tokens_in_box

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.demo.scenes import Scene
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
    areas: list[float] = []
    found: defaultdict[QueryRowKind, list[Tensor]] = defaultdict(list)
    engine = Engine(checkpoint, Method("none"), draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer))
    for one in scenes:
        referrals = list(islice(one.referrals, _EXPRESSIONS))
        tiles = torch.from_numpy(tile_image(one.image, checkpoint.tiling))[None]
        grid, n_tiles = tile_grid(one.image.size, checkpoint.tiling), tiles.shape[1]
        places = token_places(grid, n_tiles, n_tiles * checkpoint.tokens_per_tile)
        targets = torch.stack([tokens_in_box(places, grid, referral.box, one.image.size) for referral in referrals])
        areas += targets.float().mean(1).tolist()
        rows = [Row(0, checkpoint.tokenizer.encode_expression(referral.expression)) for referral in referrals]
        attention = engine.attention(engine.prefix(engine.encode(tiles)), rows, ("last", "drafted"))
        for kind in attention.by_kind:
            scores = attention.on_visual(kind).cpu()  # (L, B, n_visual)
            found[kind].append((scores * targets).sum(-1) / scores.sum(-1))
    # Nothing can be dropped after the last layer.
    last, drafted = (torch.cat(found[kind], dim=1)[:-1].mean(1).tolist() for kind in ("last", "drafted"))
    layers = [Look(layer, *shares) for layer, shares in enumerate(zip(last, drafted, strict=True), start=1)]
    return sum(areas) / len(areas), layers


def grounding_layer(checkpoint: Checkpoint) -> int:
    """Return the layer (from 1) whose last prompt token has the largest share of attention on the target.

    It is measured on 8 scenes of the training curve.
    """
    _, layers = looks(checkpoint, map(scene, pick(CURVE_SEEDS, 0, _CHOOSING)))
    return max(layers, key=lambda one: one.last).layer
