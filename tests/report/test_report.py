"""A comparison as a table of values and as a picture."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace

import pytest

from deeplayer_cli.cost.model import Cost
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import compare, gather
from deeplayer_cli.report.lines import write_csv
from deeplayer_cli.report.tradeoff import plot, require_plot
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


def test_accuracy_is_drawn_against_cost(lines, tmp_path):
    pytest.importorskip("matplotlib")
    plot(lines, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(DeeplayerError, match="cost is not known"):
        plot(lines[2:], tmp_path / "plot.svg")


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(DeeplayerError, match=r"ends in \.pdf, \.png, \.svg"):
        require_plot(tmp_path / "plot.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DeeplayerError, match=r"pip install 'deeplayer\[plot\]'"):
        require_plot(tmp_path / "plot.png")
