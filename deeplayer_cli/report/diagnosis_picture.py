"""Draws a diagnosis: attention by place in every layer, and its correlations with the place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from deeplayer_cli.evaluation.positional_bias import SIGNALS
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.diagnosis import Diagnosis
    from deeplayer_cli.evaluation.layer_diagnosis import LayerDiagnosis

_COLUMNS = 8
_INCHES = 1.25  # side of a map


def plot(diagnosis: Diagnosis, path: Path) -> None:
    """Draw the mean attention by place in the view of the whole image and in a tile, and correlations by layer.

    Raises:
        DeeplayerError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    layers = diagnosis.layers
    rows = math.ceil(len(layers) / _COLUMNS)
    has_tiles = any(layer.tile_map is not layer.whole_map for layer in layers)
    views = ("whole_map", "tile_map") if has_tiles else ("whole_map",)
    height = len(views) * rows * _INCHES + 0.5
    figure = Figure(figsize=(_COLUMNS * _INCHES, height + 3), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=[height, 3])  # type: ignore[misc]
    grid = above.subplots(len(views) * rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    highest = max(float(getattr(layer, view).max()) for layer in layers for view in views)
    for start, view in enumerate(views):
        for layer, axes in zip(layers, grid[start * rows :].flat, strict=False):
            where = "image" if view == "whole_map" else "tiles"
            axes.set_title(f"{layer.layer}{', ' + where if has_tiles else ''}", fontsize=8)
            picture = axes.imshow(getattr(layer, view), vmin=0, vmax=min(highest, 4.0), cmap="viridis")
    above.colorbar(picture, ax=grid, shrink=0.6, extend="max", label="attention / mean")
    above.suptitle("mean attention by place, by layer", fontsize=9)
    _draw_correlations(layers, below.subplots(1, len(SIGNALS), sharey=True))
    with replacing(path) as partial:
        figure.savefig(partial)


def _draw_correlations(layers: Sequence[LayerDiagnosis], panels: Sequence[Any]) -> None:
    numbers = [layer.layer for layer in layers]
    for signal, axes in zip(SIGNALS, panels, strict=True):
        found = [
            next(one for one in layer.places.correlations if one.signal == signal and one.view == "tile")
            for layer in layers
        ]
        low, high = [one.low for one in found], [one.high for one in found]
        axes.fill_between(numbers, low, high, alpha=0.3, color="grey", label="95% by chance")
        axes.plot(numbers, [one.rho for one in found], marker="o", markersize=3)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(title=signal, xlabel="layer", ylim=(-1, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("Spearman's rho in tiles")
    panels[0].legend(fontsize=7, loc="lower left")
