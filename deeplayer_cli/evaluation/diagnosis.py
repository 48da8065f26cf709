"""Diagnoses a model's attention to the image, layer by layer: positional bias, and whether a prior would help."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.evaluation.layer_diagnosis import LayerDiagnosis
from deeplayer_cli.evaluation.positional_bias import BiasTest, ImageRanks, holm, rank_maps
from deeplayer_cli.evaluation.prior_effect import PriorTest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.evaluation.attention_maps import Floats, ImageAttention
    from deeplayer_cli.pruning import Budget, QueryRowKind

SINK = 10.0
"""A visual token is a sink if it gets this many times the mean attention, whatever the prompt asks."""

ENOUGH_IMAGES = 10
"""With fewer images, mirroring and shifting give too few different draws for a band by chance."""

_ALWAYS = ("entropy", "visual_share", "first_share", "n_sinks", "sink_share")


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a model.

    Attributes:
        layers: of every decoder layer.
        n_images: number of images.
        n_rows: number of rows.
        n_targets: number of rows with a gold box that holds the centre of a visual token.
        kind: the query rows whose attention was read.
    """

    layers: list[LayerDiagnosis]
    n_images: int
    n_rows: int
    n_targets: int
    kind: QueryRowKind

    def to_dict(self) -> dict[str, object]:
        """The diagnosis as JSON values."""
        counts = {"images": self.n_images, "rows": self.n_rows, "targets": self.n_targets}
        return {"query": self.kind, **counts, "layers": [layer.to_dict() for layer in self.layers]}


def diagnose(
    images: Iterable[ImageAttention], kind: QueryRowKind, budget: Budget, *, draws: int = 1000, seed: int = 0
) -> Diagnosis:
    """Diagnose the attention of a model.

    Tokens in a row's gold box are left out of the correlations with the place: attention there is no bias.

    Args:
        images: at least one.
        kind: the query rows whose attention is diagnosed.
        budget: how many tokens are kept when attention is compared with attention divided by a prior.
        draws: number of random mirrorings and shifts of every image, for the bands.
        seed: of the draws.
    """
    bias, prior = BiasTest(draws, seed), PriorTest()
    figures: defaultdict[str, list[Floats]] = defaultdict(list)  # (L, ...) of each image
    n_rows = n_targets = 0
    for image in images:
        n_rows += len(image.ids)
        n_targets += int(image.targets.any(1).sum())
        bias.add(_ranks(image, image.by_kind[kind]))
        prior.add(image, kind)
        for name, values in _figures(image, kind).items():
            figures[name].append(values)
    mean = {name: np.mean(values, axis=0) for name, values in figures.items()}
    places, effects = bias.results(), prior.results(budget)
    p = holm([one.p for one in places])
    prior_p = None if effects is None else holm([one.difference.p for one in effects])

    def figure(name: str, layer: int) -> float | None:
        return float(mean[name][layer]) if name in mean else None

    layers = [
        LayerDiagnosis(
            layer=layer + 1,
            places=places[layer],
            p=p[layer],
            stability=figure("stability", layer),
            generic_stability=figure("generic_stability", layer),
            **{name: float(mean[name][layer]) for name in _ALWAYS},
            prior=None if effects is None else effects[layer],
            prior_p=None if prior_p is None else prior_p[layer],
            tile_map=mean["tile_map" if "tile_map" in mean else "whole_map"][layer],
            whole_map=mean["whole_map"][layer],
        )
        for layer in range(len(places))
    ]
    return Diagnosis(layers, bias.n_images, n_rows, n_targets, kind)


def token_layout(image: ImageAttention) -> np.ndarray:
    """The number of each visual token over the image's grid of tiles, (rows, columns) int64; without the thumbnail."""
    columns, rows = image.grid
    side = _side(image)
    numbers = np.arange(columns * rows * side * side, dtype=np.int64).reshape(rows, columns, side, side)
    return numbers.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)


def _ranks(image: ImageAttention, attention: Floats) -> ImageRanks:
    n_layers, n_prompts, side = len(attention), attention.shape[1], _side(image)
    by_tile = attention.reshape(n_layers, n_prompts, image.n_tiles, -1)
    tile = rank_maps(by_tile, image.targets.reshape(n_prompts, image.n_tiles, -1)).mean((1, 2))
    order = token_layout(image)
    whole = rank_maps(attention[..., order.reshape(-1)], image.targets[:, order.reshape(-1)]).mean(1)
    return ImageRanks(
        tile.reshape(n_layers, side, side), whole.reshape(n_layers, *order.shape), order, int(image.digest, 16)
    )


def _figures(image: ImageAttention, kind: QueryRowKind) -> dict[str, Floats]:
    """The figures of an image, (L,) or maps (L, side, side)."""
    attention, side = image.by_kind[kind], _side(image)
    visual = attention.sum(-1)
    shares = attention / visual[..., None]  # (L, R, n_visual)
    every = np.concatenate([shares, image.generic / image.generic.sum(-1, keepdims=True)], axis=1)
    sinks = every.min(1) * every.shape[-1] >= SINK  # (L, n_visual)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    maps = (shares.mean(1) * shares.shape[-1]).reshape(len(shares), image.n_tiles, side, side)
    found = {
        "entropy": -(shares * logs).sum(-1).mean(1) / np.log(shares.shape[-1]),
        "visual_share": visual.mean(1),
        "first_share": image.first[kind].mean(1),
        "n_sinks": sinks.sum(-1).astype(np.float64),
        "sink_share": (shares.mean(1) * sinks).sum(-1),
        "whole_map": maps[:, -1],
    }
    if image.n_tiles > 1:
        found["tile_map"] = maps[:, : image.grid[0] * image.grid[1]].mean(1)
    for name, prompts in (("stability", attention), ("generic_stability", image.generic)):
        if prompts.shape[1] > 1:
            found[name] = _mean_cosine(prompts)
    return found


def _mean_cosine(maps: Floats) -> Floats:
    """Mean cosine between two of R maps, (L,), from maps (L, R, n)."""
    n_prompts = maps.shape[1]
    directions = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
    cosines: Floats = ((directions.sum(1) ** 2).sum(-1) - n_prompts) / (n_prompts * (n_prompts - 1))
    return cosines


def _side(image: ImageAttention) -> int:
    return int((image.targets.shape[1] // image.n_tiles) ** 0.5)
