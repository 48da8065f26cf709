"""Accuracy against cost, as the numbers of a drawing; a template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.report.method_styles import style_of
from deeplayer_cli.report.page.formatting import interval, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deeplayer_cli.report.method_styles import MethodStyle
    from deeplayer_cli.report.page.runs import PageRun

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 32, 44  # margins
_STEPS = (1, 2, 5, 10)  # of ticks, times a power of ten


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A run in the drawing.

    Attributes:
        x: of the point.
        y: of the point.
        low: y of the lower end of its interval.
        high: y of the upper end of its interval.
        label: of the run.
        title: the run and its numbers, in words.
    """

    x: float
    y: float
    low: float
    high: float
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class ChartCurve:
    """The points of one method.

    Attributes:
        label: for the legend.
        style: colour and marker, as in other plots.
        points: from low to high cost.
    """

    label: str
    style: MethodStyle
    points: tuple[ChartPoint, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to places.

    Attributes:
        low: the smallest value.
        high: the largest value.
        start: the place of the smallest value.
        end: the place of the largest value.
        ticks: round values between them.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, most: float = math.inf) -> Axis:
        """Make the axis that holds all values with a little room, from 0 to ``most`` at the widest."""
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = max(0.0, low - room), min(most, high + room)
        return cls(low, high, start, end, tuple(round_values(low, high)))

    def place(self, value: float) -> float:
        """The place of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


@dataclass(frozen=True, slots=True)
class Chart:
    """The drawing.

    Attributes:
        x: the axis of cost.
        y: the axis of accuracy.
        unit: what the axis of cost shows.
        width: of the drawing, in its own units; the page scales it.
        height: of the drawing.
        curves: one for each method; a method that prunes nothing is a line across.
        unpruned: the points of the runs that prune nothing, which may lie beyond the axis of cost.
    """

    x: Axis
    y: Axis
    unit: str
    width: int
    height: int
    curves: tuple[ChartCurve, ...]
    unpruned: list[ChartPoint]


def draw_charts(runs: Sequence[PageRun]) -> list[Chart]:
    """Place the runs by cost and accuracy: one chart for each kind of cost in which they differ.

    Costs are GFLOPs and mean keep, which `compare` records. If a run lacks them, the cost is the share of the visual
    tokens that were kept.
    """
    scored = [run for run in runs if run.report.overall.rates]
    if any(run.measured.cost is None for run in scored):
        kept = {run.label: 100 * run.measured.kept for run in scored if run.measured.kept is not None}
        costs = {"visual tokens kept in the last layer (%)": kept}
    else:
        known = [(run.label, run.measured.cost) for run in scored if run.measured.cost is not None]
        costs = {
            "GFLOPs of vision and prompt, one expression per image": {label: cost.gflops for label, cost in known},
            "visual tokens seen, mean over layers (%)": {label: 100 * cost.mean_keep for label, cost in known},
        }
    return [
        _draw([run for run in scored if run.label in by], by, unit)
        for unit, by in costs.items()
        if len(set(by.values())) > 1
    ]


def _draw(runs: Sequence[PageRun], costs: Mapping[str, float], unit: str) -> Chart:
    across = {run.label for run in runs if run.method == "none"}
    across = across if len(across) < len(runs) else set()
    rates = {run.label: run.report.overall.rates["acc@0.5"] for run in runs}
    ends = [100 * end for rate in rates.values() for end in (rate.low, rate.high)]
    x = Axis.over([cost for label, cost in costs.items() if label not in across], _LEFT, _WIDTH - _RIGHT)
    y = Axis.over(ends, _HEIGHT - _BOTTOM, _TOP, most=100)
    points: dict[str, list[ChartPoint]] = {run.measured.label: [] for run in runs if run.label not in across}
    methods = {run.measured.label: run.method or run.label for run in runs}
    unpruned: list[ChartPoint] = []
    for run in sorted(runs, key=lambda run: costs[run.label]):
        rate, cost = rates[run.label], costs[run.label]
        title = f"{run.label}: {percent(rate.value)} ({interval(rate)}) at {cost:.4g}"
        middle, low, high = (y.place(100 * share) for share in (rate.value, rate.low, rate.high))
        point = ChartPoint(x.place(cost), middle, low, high, run.label, title)
        (unpruned if run.label in across else points[run.measured.label]).append(point)
    styles = _styles({label: methods[label] for label in points})
    curves = tuple(ChartCurve(label, styles[label], tuple(placed)) for label, placed in points.items())
    return Chart(x, y, unit, _WIDTH, _HEIGHT, curves, unpruned)


def _styles(methods: Mapping[str, str]) -> dict[str, MethodStyle]:
    """The style of each curve by its label: its method's, unless another curve of the same method has it already."""
    styles: dict[str, MethodStyle] = {}
    for label, method in methods.items():
        style = style_of(method)
        styles[label] = style if style not in styles.values() else style_of(label)
    return styles


def round_values(low: float, high: float, n: int = 6) -> list[float]:
    """About ``n`` round values from ``low`` to ``high``, with equal steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(one for one in _STEPS if one * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
