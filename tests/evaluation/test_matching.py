"""Settings of equal cost, found on prompts of many sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from deeplayer_cli import pruning
from deeplayer_cli.cost.model import CostModel, WorkloadKey
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.matching import Unreachable, at_equal_cost, at_equal_keep, label_of
from deeplayer_cli.evaluation.running import ComparisonPlan
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.schema import Prediction
from tests.tiny import tiny_checkpoint

CHECKPOINT = tiny_checkpoint(dtype=torch.float32)
MODEL = CostModel(CHECKPOINT, itemsize=4)
WORKLOAD = Counter(
    {WorkloadKey((60, 60), 5): 3, WorkloadKey((400, 300), 9): 2, WorkloadKey((300, 400), 4): 1}
)  # 1, 7 and 7 tiles, or 5 of at most 4
FEWER = replace(CHECKPOINT.tiling, max_tiles=4)


def tiling(settings):
    return FEWER if settings.max_tiles == 4 else CHECKPOINT.tiling


def cost(settings):
    method = pruning.build(settings.method, settings.pruning_options(CHECKPOINT.grounding_layer, None), 8)
    return MODEL.cost(method, WORKLOAD, tiling(settings))


def match(wanted, shares, what):
    return at_equal_cost(wanted, shares, what, cost, lambda settings: MODEL.largest(WORKLOAD, tiling(settings)))


def wanted(*names):
    return [Settings(method=name) for name in names]


MEASURES = {"mean-keep": lambda settings: cost(settings).mean_keep, "flops": lambda settings: cost(settings).gflops}


@given(
    first=st.sampled_from(["deep-layer", "vscan", "pyramiddrop", "sparsevlm-nomerge"]),
    second=st.sampled_from(["fastv", "divprune", "pyramiddrop", "deep-layer", "feather"]),
    share=st.floats(0.02, 1),
    what=st.sampled_from(["mean-keep", "flops"]),
)
def test_the_second_costs_what_the_first_does_to_one_token(first, second, share, what):
    assume(first != second)
    plain, found = match(wanted(first, second), [share], what)
    measure = MEASURES[what]
    target = measure(plain)
    assert plain == Settings(method=first, keep=share)
    if isinstance(found, Unreachable):
        assert not found.low <= target <= found.high
        return
    assert measure(found) <= target * (1 + 1e-6)
    n_visual = MODEL.largest(WORKLOAD, CHECKPOINT.tiling)
    more = replace(found, keep=min(1.0, found.keep + 1.001 / n_visual))
    assert found.keep == 1.0 or more.keep == 1.0 or measure(more) > target


def test_what_costs_the_same_keeps_the_same():
    first, second = match(wanted("deep-layer", "random"), [0.137], "flops")
    assert (first.keep, second.keep) == (0.137, 0.137)


def test_what_cannot_be_reached_is_said_and_not_run():
    found = match(wanted("divprune", "deep-layer"), [0.1], "mean-keep")[1]
    assert isinstance(found, Unreachable) and found.target < 0.375 < found.low < found.high == 1.0
    assert found.to_dict()["unreachable"]["reach"] == [found.low, 1.0]


def test_fewer_tiles_can_set_the_cost():
    fewer = Settings(method="none", max_tiles=4)
    first, second = match([fewer, Settings(method="fastv")], [0.1, 0.5], "flops")
    assert first == fewer and label_of(first) == "none@max-tiles=4"
    assert cost(fewer).gflops * 0.95 < cost(second).gflops <= cost(fewer).gflops
    with pytest.raises(DeeplayerError, match="none@max-tiles=4 prunes nothing"):
        match([fewer, Settings(method="fastv")], [0.1], "mean-keep")


def test_at_equal_keep_what_prunes_nothing_is_run_once():
    found = at_equal_keep([Settings(method="none", max_tiles=4), *wanted("random")], [0.1, 0.5])
    assert [(one.method, one.keep) for one in found] == [("none", 0.1), ("random", 0.1), ("random", 0.5)]


def test_rows_whose_image_was_not_read_cost_nothing():
    asked = Prediction(1, "a", "the dog", "ok", width=60, height=60, visual_tokens=4, kept_tokens=4)
    failed = Prediction(2, "b", "the dog", "error")
    method = pruning.build("none", Settings().pruning_options(None, None), 8)
    assert [MODEL.answered(row, method) for row in (asked, failed)] == [((60, 60), 7, None, False), None]
    found = MODEL.cost(method, Counter([((60, 60), 7, None, False)]), CHECKPOINT.tiling)
    assert (found.rows, found.visual_tokens, found.mean_keep) == (1, 4, 1.0)
    double = found.plus(found)
    assert (double.rows, double.gflops, double.kv_bytes) == (2, found.gflops, found.kv_bytes)


@pytest.mark.parametrize("what", ["flops", "mean-keep"])
def test_a_method_that_adapts_by_itself_is_not_priced_at_its_upper_bound(what):
    """Its selector decides; a cost before the answers would be that of the most tokens that it may keep."""
    adapts = pruning.build("deep-layer", Settings(keep_mass=0.9).pruning_options(None, None), 8)
    assert adapts.is_adaptive and adapts.mean_keep(100, 8) == 1.0 > adapts.mean_keep(100, 8, 20)
    plan = ComparisonPlan(Settings(method="none"), wanted("fastv", "random"), [0.1], what, "none")
    fixed = pruning.build("fastv", Settings(method="fastv").pruning_options(None, None), 8)
    runner = SimpleNamespace(method=lambda one: adapts if one.method == "random" else fixed)
    with pytest.raises(DeeplayerError, match=f"--match {what} needs .* and that of random depends on each row"):
        plan.run(runner, lambda progress: None)
