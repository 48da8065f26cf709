"""Draws a study: accuracy against FLOPs and against measured time, for every split.

``python -m deeplayer_cli.report.study_plot FOLDER study.png LINES`` draws the lines of these names, separated by
commas.
"""

from __future__ import annotations

from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import compare
from deeplayer_cli.evaluation.line_costs import key_of
from deeplayer_cli.report.colours import BLACK
from deeplayer_cli.report.cost_tables import BASELINE, FLOPS, TIME, priced_splits
from deeplayer_cli.report.tradeoff import Panel, curves_of, draw_curve, require_plot
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from deeplayer_cli.evaluation.compare import ComparedRun
    from deeplayer_cli.evaluation.line_costs import LineKey


def draw(folder: Path, path: Path, labels: Collection[str]) -> None:
    """Draw lines of ``outcomes-NAME.json`` in a folder, at the costs of ``costs.json``.

    Args:
        folder: the study.
        path: of the picture.
        labels: names of the lines.

    Raises:
        DeeplayerError: matplotlib, a file or a line is missing, or a file cannot be read or written.
    """
    require_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    splits = priced_splits(folder)
    if not splits:
        raise DeeplayerError(f"{folder} has no outcomes-NAME.json")
    known = {line.run.label for lines in splits.values() for line in lines}
    if unknown := sorted(set(labels) - known):
        raise DeeplayerError(f"{folder} has no line {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    figure = Figure(figsize=(11, 0.6 + 3.8 * len(splits)), layout="constrained")
    every = figure.subplots(len(splits), 2, sharey="row", squeeze=False)
    for axes_of_split, (name, lines) in zip(every, splits.items(), strict=True):
        by_key = {key_of(line.run): line for line in lines}
        ordered = sorted((line.run for line in lines if line.run.label in labels), key=lambda run: run.keep or 1.0)
        (unpruned,) = compare([lines[0].run], lines[0].run)
        curves = curves_of(compare(ordered, lines[0].run))
        for axes, measure in zip(axes_of_split, (FLOPS, TIME), strict=True):
            axes.axhspan(unpruned.accuracy.low, unpruned.accuracy.high, color=BLACK, alpha=0.08, linewidth=0)
            axes.axhline(unpruned.accuracy.value, color=BLACK, linewidth=1.2, label=BASELINE)
            costs = {key: measure.of(line) for key, line in by_key.items()}
            for curve in curves:
                draw_curve(axes, Panel(measure.name, partial(_cost, costs)), curve)
            axes.set_xlabel(f"{measure.name}, as a share of the unpruned model's")
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.set_xlim(left=0)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        axes_of_split[0].set_ylabel(f"Acc@0.5, {name}")
    figure.legend(*every[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    with replacing(path) as written:
        figure.savefig(written, dpi=110)


def _cost(costs: Mapping[LineKey, float], line: ComparedRun) -> float:
    return costs[key_of(line.run)]


if __name__ == "__main__":
    parser = ArgumentParser("python -m deeplayer_cli.report.study_plot", description="Draw the lines of a study.")
    parser.add_argument("FOLDER", type=Path, help="with outcomes-NAME.json and costs.json")
    parser.add_argument("PICTURE", type=Path, help="to write: .png, .svg or .pdf")
    parser.add_argument("LINES", help="names of lines, separated by commas")
    given = parser.parse_args()
    try:
        draw(given.FOLDER, given.PICTURE, given.LINES.split(","))
    except DeeplayerError as error:
        parser.exit(2, f"{error}\n")
