"""Draws a sweep: accuracy after pruning by layer, and what of the attention falls on the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.report.tradeoff import interval_bars
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.evaluation.sweep import Choice
    from deeplayer_cli.evaluation.target_attention import TargetMeasures


def plot(choice: Choice, measured: TargetMeasures, path: Path) -> None:
    """Draw accuracy on the selection rows, the chosen layer's on the report rows, and attention to the targets.

    Raises:
        DeeplayerError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    layers = [one.layer for one in choice.layers]
    selection = [one.accuracy.rate for one in choice.layers]
    left.errorbar(
        layers, [rate.value for rate in selection], interval_bars(selection), marker="o", capsize=3, label="selection"
    )
    left.axhline(choice.unpruned.rate.value, color="grey", linestyle="--", label="selection, unpruned")
    held_out = choice.held_out.rate
    left.errorbar(
        [choice.layer.layer + 0.15],
        [held_out.value],
        interval_bars([held_out]),
        marker="s",
        capsize=3,
        label="report, chosen",
    )
    left.set(title="Acc@0.5 after pruning there", ylim=(0, 1.05))
    for kind, by_layer in measured.by_kind.items():
        numbers = range(1, len(by_layer) + 1)
        for axes, rates in ((middle, [one.mass for one in by_layer]), (right, [one.rank for one in by_layer])):
            axes.errorbar(
                numbers, [rate.value for rate in rates], interval_bars(rates), marker="o", capsize=2, label=kind
            )
    middle.axhline(measured.area, color="grey", linestyle="--", label="chance")
    middle.set(title="share of attention on the target")
    middle.set_ylim(bottom=0)
    right.axhline(0.5, color="grey", linestyle="--", label="chance")
    right.set(title="mean rank of the target's tokens", ylim=(1, 0))
    for axes in (left, middle, right):
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial)
