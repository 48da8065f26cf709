"""A comparison as a table of values and as a picture."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace

import pytest

from deeplayer_cli.cost.model import Cost
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import compare, gather
from deeplayer_cli.pruning import known_methods
from deeplayer_cli.report.lines import write_csv
from deeplayer_cli.report.method_styles import _STYLES, style_of
from deeplayer_cli.report.tradeoff import curves_of, plot, require_plot
from deeplayer_cli.schema import Prediction


@pytest.fixture
def lines():
    whole = [Prediction(n, str(n), "b", "ok", iou=0.1 * n) for n in range(10)]
    none = replace(gather(whole, label="none", keep=1.0), cost=Cost(10, 1000, 1000.0, 20.0, 4e6))
    half = [replace(row, iou=0.05 * row.id, layer=2) for row in whole]
    pruned = replace(gather(half, label="a, b", keep=0.1), cost=Cost(10, 1000, 300.0, 8.0, 1e6))
    return compare([none, pruned, replace(pruned, label="unknown cost", cost=None)], none)


def test_a_line_is_a_row(lines, tmp_path):
    write_csv(lines, tmp_path / "lines.csv")
    with (tmp_path / "lines.csv").open(newline="") as stream:
        none, pruned, unknown = csv.DictReader(stream)
    assert (none["method"], pruned["method"]) == ("none", "a, b")
    assert (float(pruned["acc@0.5_low"]), float(pruned["acc@0.5"])) == (lines[1].accuracy.low, lines[1].accuracy.value)
    assert float(pruned["difference_value"]) == lines[1].difference.value and none["difference_value"] == ""
    assert float(pruned["gflops"]) == 0.8 and unknown["gflops"] == ""


def compared(*runs: tuple[str, float, int | None, float]):
    """A comparison of runs with (label, keep, layer, GFLOPs), of which each is right in half of its rows."""
    rows = [Prediction(n, str(n), "b", "ok", iou=0.1 * n, layer=None) for n in range(10)]
    found = [
        replace(
            gather([replace(row, layer=layer) for row in rows], label=label, keep=keep),
            cost=Cost(10, 1000, 500.0, 10 * gflops, 1e6),
        )
        for label, keep, layer, gflops in [("none", 1.0, None, 2.0), *runs]
    ]
    return compare(found, found[0])


def test_accuracy_is_drawn_against_cost(lines, tmp_path):
    pytest.importorskip("matplotlib")
    plot(lines, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(DeeplayerError, match="cost is not known"):
        plot(lines[2:], tmp_path / "plot.svg")


KEEPS = [("fastv", keep, 2, 1.0 + keep) for keep in (0.5, 0.1)]
LAYERS = [(f"primed@layer={layer}", keep, layer, 1.0 + layer) for layer in (3, 1, 2) for keep in (0.1, 0.5)]
MATCHED = [("vscan@layer=2", 0.3, 2, 1.5), ("vscan@layer=1", 0.2, 1, 1.5)]


def test_lines_of_a_method_are_a_curve():
    curves = curves_of(compared(*KEEPS, *LAYERS, *MATCHED)[1:])
    found = {curve.name: [(line.run.layer, line.run.keep) for line in curve.lines] for curve in curves}
    assert found == {
        "fastv": [(2, 0.1), (2, 0.5)],  # by cost
        "primed, keep 0.1": [(1, 0.1), (2, 0.1), (3, 0.1)],  # by layer
        "primed, keep 0.5": [(1, 0.5), (2, 0.5), (3, 0.5)],
        "vscan": [(1, 0.2), (2, 0.3)],
    }
    assert [curve.by_layer for curve in curves] == [name != "fastv" for name in found]
    dashes = {curve.name: curve.dashes for curve in curves}
    assert dashes["primed, keep 0.1"] != dashes["primed, keep 0.5"]


@pytest.mark.parametrize(
    ("runs", "axes"),
    [
        (KEEPS, ["GFLOPs of vision", "share of visual tokens"]),
        ([*KEEPS, *LAYERS], ["GFLOPs of vision", "share of visual tokens", "layer of the first drop"]),
        ([KEEPS[0], LAYERS[0], ("a/<b>&", 0.1, 3, 1.0)], ["GFLOPs", "mean keep"]),  # a list of methods
        ([], ["GFLOPs of vision"]),
    ],
)
def test_every_kind_of_plot(runs, axes, tmp_path, monkeypatch):
    mpl = pytest.importorskip("matplotlib")
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # text as text
    plot(compared(*runs), tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    for text in [*axes, "none", *({"fastv"} if runs else {})]:
        assert f">{text}" in drawn
    assert ("layer of the first drop" in drawn) == (len(axes) == 3)
    assert (style_of("fastv").colour.lower() in drawn) == bool(runs)


def test_methods_look_different_and_the_same_in_every_plot():
    named = [style_of(name) for name in _STYLES]
    assert len({*named, style_of("none")}) == len(named) + 1 and _STYLES.keys() <= known_methods().keys()
    assert style_of("a-method-of-mine") == style_of("a-method-of-mine") not in named


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(DeeplayerError, match=r"ends in \.pdf, \.png, \.svg"):
        require_plot(tmp_path / "plot.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DeeplayerError, match=r"pip install 'deeplayer\[plot\]'"):
        require_plot(tmp_path / "plot.png")
