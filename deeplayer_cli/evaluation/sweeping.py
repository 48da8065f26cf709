"""Runs a sweep: the settings of its layers, and the attention on its selection rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.attention_maps import AttentionReader, first_images
from deeplayer_cli.evaluation.matching import prunes
from deeplayer_cli.evaluation.target_attention import TargetMeasures, measure_targets
from deeplayer_cli.pruning import Budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.evaluation.running import ComparisonRunner
    from deeplayer_cli.evaluation.sweep import RowSplit
    from deeplayer_cli.pruning import QueryRowKind
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.runtime.turns import LoadedModel
    from deeplayer_cli.sources import Requests

KINDS: tuple[QueryRowKind, ...] = ("last", "text", "drafted")
_BY_DEFAULT = 8  # layers


def layer_settings(runner: ComparisonRunner, settings: Settings, layers: Sequence[int] | None) -> dict[int, Settings]:
    """The settings of every layer of a sweep, by layer.

    Args:
        runner: has the model.
        settings: the method and its budget.
        layers: counted from 1; None for up to eight, evenly spaced.

    Raises:
        DeeplayerError: the method prunes nothing, or the model cannot run it after one of the layers.
    """
    if not prunes(settings):
        raise DeeplayerError(f"method {settings.method} prunes nothing: name one that drops tokens after a layer")
    if layers is None:
        steps = min(_BY_DEFAULT, runner.n_layers - 1)
        layers = [round(1 + step * (runner.n_layers - 2) / max(1, steps - 1)) for step in range(steps)]
    found = {layer: replace(settings, layer=layer) for layer in layers}
    for one in found.values():
        try:
            runner.method(one)
        except DeeplayerError as error:
            raise DeeplayerError(f"--layers: {error}") from error
    return found


def measure_selection(
    model: LoadedModel, settings: Settings, requests: Requests, split: RowSplit, n_images: int
) -> TargetMeasures:
    """Measure the attention to the targets of selection rows, in all layers in one pass.

    Args:
        model: that answered the rows, so what it does not know has been said.
        settings: how images are cut, and how many tokens are kept.
        requests: all rows.
        split: says which rows choose.
        n_images: the most images.
    """
    reader = AttentionReader(model.checkpoint, settings, KINDS, generic=False, scope=model.scope)
    rows = first_images((row for row in requests if row.id in split.select), n_images)
    return measure_targets(reader.read(rows), Budget(settings.keep, settings.keep_tokens))
