"""Draws accuracy against cost, and against the layer where it varies."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.report.colours import BLACK
from deeplayer_cli.report.method_styles import MethodStyle, style_of
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.compare import ComparedRun
    from deeplayer_cli.evaluation.score import Rate

_BASELINE = "none"
_FORMATS = (".pdf", ".png", ".svg")
_LAYER = re.compile(r"@layer=\d+")
_LINES = ("-", "--", ":", "-.")  # of the first, second ... line of a method


class Panel(NamedTuple):
    """One axis of costs.

    Attributes:
        title: of the axis.
        value: of a line.
    """

    title: str
    value: Callable[[ComparedRun], float | None]


def _gflops(line: ComparedRun) -> float:
    return line.run.cost.gflops if line.run.cost is not None else 0.0


def _mean_keep(line: ComparedRun) -> float:
    return line.run.cost.mean_keep if line.run.cost is not None else 0.0


_GFLOPS = Panel("GFLOPs of vision and prompt,\none expression per image", _gflops)
_MEAN_KEEP = Panel("share of visual tokens seen,\nmean over layers", _mean_keep)
_BY_LAYER = Panel("layer of the first drop", lambda line: line.run.layer)


@dataclass(frozen=True)
class Curve:
    """Lines of a comparison that belong together: a method at several costs.

    Attributes:
        name: for the legend.
        style: of its method.
        dashes: of the line.
        lines: in the order of their layer, or of their cost.
        by_layer: whether they differ in their layer.
    """

    name: str
    style: MethodStyle
    dashes: str
    lines: Sequence[ComparedRun]
    by_layer: bool


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
    """Draw accuracy with its 95% interval against FLOPs and mean keep, and leave out lines of unknown cost.

    A method has the same colour and marker in every plot. ``none`` is a line across, with its interval. Where a
    method's layer varies, a third panel has the layer as its axis. Where every method has one line only, they are
    listed from the best to the worst.

    Raises:
        DeeplayerError: no line has a known cost, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    known = [line for line in lines if line.run.cost is not None]
    if not known:
        raise DeeplayerError(f"{path} cannot be drawn: the methods' cost is not known")
    curves = curves_of(line for line in known if line.run.label != _BASELINE)
    baseline = next((line for line in known if line.run.label == _BASELINE), None)
    listed = len(curves) > 1 and all(len(curve.lines) == 1 for curve in curves)
    height = max(2.5, 1.2 + 0.3 * len(curves)) if listed else max(4.2, 0.8 + 0.24 * len(curves))
    panels = [_GFLOPS, _MEAN_KEEP, *([_BY_LAYER] if any(curve.by_layer for curve in curves) else [])]
    figure = Figure(figsize=(10 if listed else 2.6 + 3.9 * len(panels), height), layout="constrained")
    if listed:
        _draw_list(figure, curves, baseline)
    else:
        _draw_panels(figure, panels, curves, baseline)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)


def curves_of(lines: Iterable[ComparedRun]) -> list[Curve]:
    """Put the lines of each method together, the curve with the highest accuracy first.

    Lines of a method that differ in their layer are a curve for each keep, or one curve if no two have the same keep.
    """
    methods: defaultdict[str, list[ComparedRun]] = defaultdict(list)
    for line in lines:
        methods[_LAYER.sub("", line.run.label)].append(line)
    curves: list[Curve] = []
    used: Counter[str] = Counter()
    for name, members in methods.items():
        by_layer = len({line.run.layer for line in members}) > 1
        groups: defaultdict[Hashable, list[ComparedRun]] = defaultdict(list)
        for line in members:
            groups[line.run.keep if by_layer else None].append(line)
        if by_layer and all(len(group) == 1 for group in groups.values()):
            groups = defaultdict(list, {None: members})
        for keep, group in groups.items():
            method = name.split("@")[0]
            called = name if len(groups) == 1 else f"{name}, keep {keep}"
            ordered = sorted(group, key=lambda line: (line.run.layer or 0) if by_layer else _gflops(line))
            curves.append(Curve(called, style_of(method), _LINES[used[method] % len(_LINES)], ordered, by_layer))
            used[method] += 1
    return sorted(curves, key=lambda curve: -max(line.accuracy.value for line in curve.lines))


def _draw_panels(figure: Any, panels: Sequence[Panel], curves: Sequence[Curve], baseline: ComparedRun | None) -> None:
    """Draw curves against each cost, side by side, with one legend."""
    from matplotlib.ticker import PercentFormatter

    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axes in zip(panels, every, strict=True):
        if baseline is not None:
            axes.axhspan(baseline.accuracy.low, baseline.accuracy.high, color=BLACK, alpha=0.08, linewidth=0)
            axes.axhline(baseline.accuracy.value, color=BLACK, linewidth=1.2, label=_baseline_name(baseline))
        for curve in curves:
            if panel is not _BY_LAYER or curve.by_layer:
                draw_curve(axes, panel, curve)
        axes.set_xlabel(panel.title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.06)
    every[0].set_ylabel("Acc@0.5")
    every[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if panels[1] is _MEAN_KEEP:
        every[1].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if _BY_LAYER in panels:
        every[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)


def draw_curve(axes: Any, panel: Panel, curve: Curve) -> None:
    """Draw the accuracy of a curve, with intervals, against the cost of a panel."""
    values = [(value, line.accuracy) for line in curve.lines if (value := panel.value(line)) is not None]
    axes.errorbar(
        [value for value, _ in values],
        [rate.value for _, rate in values],
        interval_bars([rate for _, rate in values]),
        color=curve.style.colour,
        marker=curve.style.marker,
        linestyle=curve.dashes,
        markersize=5,
        linewidth=1.6,
        elinewidth=0.8,
        label=curve.name,
    )


def _draw_list(figure: Any, curves: Sequence[Curve], baseline: ComparedRun | None) -> None:
    """Draw one row for each method: its accuracy, and its costs beside it."""
    from matplotlib.ticker import PercentFormatter

    accuracy, gflops, mean_keep = figure.subplots(1, 3, sharey=True, width_ratios=[3, 1, 1])
    every = [curve.lines[0] for curve in curves]
    for place, (curve, line) in enumerate(zip(curves, every, strict=True)):
        look = {"color": curve.style.colour, "marker": curve.style.marker, "markersize": 6}
        accuracy.errorbar([line.accuracy.value], [place], xerr=interval_bars([line.accuracy]), linewidth=1.6, **look)
        gflops.plot([_gflops(line)], [place], **look)
        mean_keep.plot([_mean_keep(line)], [place], **look)
    if baseline is not None:
        accuracy.axvspan(baseline.accuracy.low, baseline.accuracy.high, color=BLACK, alpha=0.08, linewidth=0)
        for axes, value in zip(
            (accuracy, gflops, mean_keep),
            (baseline.accuracy.value, _gflops(baseline), _mean_keep(baseline)),
            strict=True,
        ):
            axes.axvline(value, color=BLACK, linewidth=1.2)
            axes.text(value, 1.0, _BASELINE, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)
    accuracy.set_yticks(range(len(curves)), [curve.name for curve in curves])
    accuracy.set_ylim(len(curves) - 0.4, -0.6)
    for axes, title in ((accuracy, "Acc@0.5"), (gflops, "GFLOPs"), (mean_keep, "mean keep")):
        axes.set_xlabel(title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (accuracy, mean_keep):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for axes in (gflops, mean_keep):
        axes.set_xlim(0, axes.get_xlim()[1])


def interval_bars(rates: Sequence[Rate]) -> tuple[list[float], list[float]]:
    """Lengths of intervals below and above their values, for ``errorbar``; rounding must not make them negative."""
    return [max(0.0, rate.value - rate.low) for rate in rates], [max(0.0, rate.high - rate.value) for rate in rates]


def _baseline_name(line: ComparedRun) -> str:
    return f"{_BASELINE}, {_gflops(line):.3g} GFLOPs"
