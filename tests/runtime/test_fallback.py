"""Rows that fall back are the unpruned rows; all others are the pruned ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from deeplayer_cli import checkpoints
from deeplayer_cli.commands import options
from deeplayer_cli.cost.model import CostModel
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.matching import label_of
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.runtime.totals import Totals
from deeplayer_cli.sources.jsonl import JsonLines

SAMPLES = Path(__file__).parents[2] / "sample_data" / "requests.jsonl"
N_ROWS = 24
LEAST = 0.95


@pytest.fixture(scope="module")
def demo():
    return checkpoints.load("demo")


def rows_of(demo, n=N_ROWS, **settings):
    grounder = Grounder(demo, Settings(**settings))
    return grounder, list(grounder.ground(list(JsonLines(SAMPLES).rows())[:n]))


@pytest.mark.parametrize("budget", [{"keep": 0.04}, {"keep_mass": 0.5}])
def test_rows_that_fall_back_are_the_unpruned_ones(demo, budget):
    _, unpruned = rows_of(demo, method="none")
    _, pruned = rows_of(demo, **budget)
    grounder, mixed = rows_of(demo, fallback=LEAST, **budget)
    fell_back = [row.fallback is not None for row in mixed]
    assert 0 < sum(fell_back) < N_ROWS
    for none, first, row in zip(unpruned, pruned, mixed, strict=True):
        unsure = first.score is None or first.score < LEAST
        assert (row.fallback is not None) == unsure
        if unsure:
            told = {"score": first.score, "kept_tokens": first.kept_tokens}
            assert row == replace(none, method="deep-layer", layer=6, fallback=told)
        else:
            assert row == first
    totals = Totals.from_predictions(mixed, grounder.mean_keep)
    assert totals.fallbacks == sum(fell_back) and "asked again without pruning" in totals.summary(1.0)
    _, one_by_one = rows_of(demo, fallback=LEAST, batch_size=1, **budget)
    assert [row.answer for row in one_by_one] == [row.answer for row in mixed]


def test_both_readings_are_paid(demo):
    costs = CostModel(demo, demo.model.dtype.itemsize)
    (none, unpruned), (grounder, pruned), (_, mixed) = (
        rows_of(demo, 4, **settings) for settings in ({"method": "none"}, {"keep": 0.1}, {"fallback": 1.0, "keep": 0.1})
    )
    assert all(row.fallback for row in mixed)
    cheap, dear, both = (
        costs.cost(method, Counter(costs.answered(row, method) for row in rows), demo.tiling)
        for method, rows in ((grounder.method, pruned), (none.method, unpruned), (grounder.method, mixed))
    )
    vision = costs.cost(none.method, Counter(), demo.tiling).total_gflops
    assert vision == 0.0
    assert both.seen_tokens == pytest.approx(cheap.seen_tokens + dear.seen_tokens)
    assert both.total_kv_bytes == dear.total_kv_bytes
    assert dear.total_gflops < both.total_gflops < cheap.total_gflops + dear.total_gflops  # vision runs once


def test_an_adaptive_run_pays_for_what_it_keeps(demo):
    costs = CostModel(demo, demo.model.dtype.itemsize)
    grounder, rows = rows_of(demo, method="scout-focus", keep_mass=0.8)
    kept = {row.kept_tokens for row in rows}
    assert len(kept) > 1 and max(kept) < 144 * 3
    paid = costs.cost(grounder.method, Counter(costs.answered(row, grounder.method) for row in rows), demo.tiling)
    assert paid.seen_tokens == sum(row.kept_tokens for row in rows)
    assert Grounder(demo, Settings(method="scout-focus")).settings.keep == 0.15


def test_an_adaptive_run_keeps_within_its_bounds(demo):
    bounds = options.keep_settings("auto:0.8:0.03:0.05")
    _, free = rows_of(demo, method="scout-focus", keep_mass=0.8)
    _, rows = rows_of(demo, method="scout-focus", **bounds)
    for row, unbounded in zip(rows, free, strict=True):
        fewest, most = int(0.03 * row.visual_tokens), int(0.05 * row.visual_tokens)
        assert row.kept_tokens == min(max(unbounded.kept_tokens, fewest), most)
    assert {row.kept_tokens for row in rows} != {row.kept_tokens for row in free}
    settings = Settings(method="scout-focus", **bounds)
    assert label_of(settings) == "scout-focus@keep=auto:0.8:0.03:0.05"
    assert {"keep_least", "keep_most"} <= settings.deciding().keys()
    assert not {"keep_least", "keep_most"} & Settings(keep_mass=0.8).deciding().keys()


@pytest.mark.parametrize(
    "text", ["auto:0.9:0.1", "auto:", "auto:0.9:0.1:0.2:0.3", "0.1:0.5", "auto:x", "auto:0.9::0.5"]
)
def test_a_keep_that_is_neither_is_refused(text):
    with pytest.raises(DeeplayerError, match=r"--keep must be a share, such as 0\.1, or auto:P or auto:P:LEAST:MOST"):
        options.keep_settings(text)


@pytest.mark.parametrize("settings", [{"fallback": 0.0}, {"fallback": 1.5}, {"keep_mass": 2.0}, {"fallback": "often"}])
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(DeeplayerError, match=r"--fallback must be|--keep auto:P needs"):
        Settings(**settings)
