"""Draws accuracy against cost."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle, product
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from deeplayer_cli.cost.model import Cost
    from deeplayer_cli.evaluation.compare import ComparedRun
    from deeplayer_cli.evaluation.score import Rate

_AXES: dict[str, Callable[[Cost], float]] = {
    "GFLOPs of vision and prompt, one expression per image": lambda cost: cost.gflops,
    "share of visual tokens seen, mean over layers": lambda cost: cost.mean_keep,
}
_COLOURS = [f"C{number}" for number in range(10)]
_MARKERS = ("o", "s", "^", "D")  # the next marker when the colours start again
_FORMATS = (".pdf", ".png", ".svg")


def require_plot(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before any work.

    Raises:
        DeeplayerError: matplotlib is missing, or the name does not end in a known format.
    """
    if path.suffix.lower() not in _FORMATS:
        raise DeeplayerError(f"{path} cannot be drawn: name a file that ends in {', '.join(_FORMATS)}")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise DeeplayerError(f"{path} needs matplotlib to be drawn: pip install 'deeplayer[plot]'") from error
    del mpl


def plot(lines: Sequence[ComparedRun], path: Path) -> None:
    """Draw accuracy with its 95% interval against FLOPs and against mean keep, and leave out lines of unknown cost.

    Raises:
        DeeplayerError: no line has a known cost, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    curves: defaultdict[str, list[tuple[Cost, Rate]]] = defaultdict(list)
    known = [(line.run.cost, line) for line in lines if line.run.cost is not None]
    for cost, line in sorted(known, key=lambda one: one[0].gflops):
        curves[line.run.label].append((cost, line.accuracy))
    if not curves:
        raise DeeplayerError(f"{path} cannot be drawn: the methods' cost is not known")
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    top = 1.1 * max(rate.high for points in curves.values() for _, rate in points) or 1.0
    for axes, (title, cost_of) in zip(both, _AXES.items(), strict=True):
        for (name, points), (marker, colour) in zip(curves.items(), cycle(product(_MARKERS, _COLOURS))):
            costs = [cost_of(cost) for cost, _ in points]
            # At 0 and 1 an interval ends at the value; rounding must not make the difference negative.
            below = [max(0.0, rate.value - rate.low) for _, rate in points]
            above = [max(0.0, rate.high - rate.value) for _, rate in points]
            values = [rate.value for _, rate in points]
            axes.errorbar(costs, values, (below, above), marker=marker, color=colour, capsize=3, label=name)
        axes.set(xlabel=title, ylim=(0, top))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    both[0].set_ylabel("Acc@0.5")
    figure.legend(*both[1].get_legend_handles_labels(), loc="outside right")
    with replacing(path) as partial:
        figure.savefig(partial)
