"""The table for a card, on a CPU: every line is checked, limits are arithmetic, and what does not fit is left out."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.bench import SUITES, BenchPlan, PeakRates, gpu, measure, measure_rates, required_share
from deeplayer_cli.bench.limits import TimeLimit
from deeplayer_cli.bench.timing import Case
from deeplayer_cli.errors import DeeplayerError
from tests.tiny import tiny_checkpoint

PLAN = BenchPlan((5,), (0.2,), (1, 3), 4, ("deep-layer", "scout-focus"), rows=(2,))
RATES = PeakRates(flops=1e12, bandwidth=1e9, bytes_per_number=8)


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


def test_every_line_of_the_table_is_checked(checkpoint):
    results = list(gpu(checkpoint, PLAN, rounds=1))
    assert {result.case.group.split(",")[0] for result in results} == {"prefill", "share", "decode", "e2e"}
    assert all(result.equal == 1 and result.speed is not None for result in results)
    slow = PeakRates(flops=1e9, bandwidth=1e12, bytes_per_number=8)  # so that computing is what takes time
    limits = {(r.case.group, r.case.name): r.case.limit(slow) for r in results if r.case.limit}
    groups = {group for group, _ in limits}
    alone = [
        group for group in groups if "expressions" not in group
    ]  # several share an unpruned image, but not a pruned
    for group in alone:
        assert limits[group, "deep-layer 0.2"].seconds < limits[group, "unpruned"].seconds
    assert len(alone) == 2 and len(groups) == 5 and all(limit.seconds > 0 for limit in limits.values())


def test_what_does_not_fit_is_left_out_with_a_line(checkpoint, caplog):
    def suite(checkpoint, plan):
        yield Case("g", "fits", lambda _: 1, lambda: 1)
        if plan.expressions == (3,):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with patch.dict(SUITES, dict.fromkeys(SUITES, suite)):
        results = list(gpu(checkpoint, PLAN, rounds=1))
    assert [result.case.group for result in results] == ["prefill, g", "decode, g", "e2e, g"]
    assert "share of 5 tiles and 3 expressions left out: it does not fit into the memory of cpu" in caplog.text
    broken = dict.fromkeys(SUITES, lambda *_: (_ for _ in ()).throw(RuntimeError("a defect")))
    with patch.dict(SUITES, broken), pytest.raises(RuntimeError, match="a defect"):
        list(gpu(checkpoint, PLAN, rounds=1))


@pytest.mark.parametrize(
    ("outcome", "equal"),
    [([[1, 2], [3, 4]], 1), ([[1, 2], [3, 5]], 0.75), ([[1, 2], [3]], 0.75), ([[1], [2, 3, 4]], 0.8)],
)
def test_the_share_of_equal_tokens(outcome, equal):
    case = Case("g", "c", lambda _: outcome, lambda: [[1, 2], [3, 4]])
    strict, lenient = (next(measure([case], 1, torch.device("cpu"), required)) for required in (1.0, 0.7))
    assert strict.equal == pytest.approx(equal)
    assert (strict.speed is None) == (equal != 1) and lenient.speed is not None


def test_sixteen_bits_need_four_fifths_of_the_tokens(checkpoint):
    half = replace(checkpoint, model=tiny_checkpoint(dtype=torch.bfloat16).model)
    found = []
    with patch("deeplayer_cli.bench.gpu.measure", lambda cases, rounds, device, required: found.append(required) or []):
        list(gpu(checkpoint, PLAN, 1))
        list(gpu(half, PLAN, 1))
    assert set(found[: len(found) // 2]) == {1.0} and set(found[len(found) // 2 :]) == {0.8}
    assert [required_share(suite, torch.float16) for suite in ("peer", "select", "pipeline")] == [0.8, 1.0, 1.0]


def test_a_limit_is_the_longer_of_computing_and_reading():
    assert TimeLimit.of_passes(RATES, 1, 2e12, 10, 0) == TimeLimit(2.0, "compute")
    assert TimeLimit.of_passes(RATES, 3, 2e12, 10**9, 10**8) == TimeLimit(pytest.approx(3.3), "weights")
    assert TimeLimit.of_passes(RATES, 3, 2e12, 10**8, 10**9).bound == "kv cache"
    assert TimeLimit(1.0, "compute").then(TimeLimit(2.0, "weights")) == TimeLimit(3.0, "weights")


def test_rates_are_measured():
    with patch.dict("deeplayer_cli.bench.gpu._PROBES", {"cpu": (64, 2**16)}):
        rates = measure_rates(torch.device("cpu"), torch.float32)
    assert rates.flops > 0 and rates.bandwidth > 0 and rates.bytes_per_number == 4


def test_without_a_card_one_sentence_says_so():
    with (
        patch.object(torch.cuda, "is_available", return_value=False),
        pytest.raises(DeeplayerError, match=r"bench gpu needs a CUDA device.*--device cpu --model random:mini"),
    ):
        CliRunner().invoke(app, ["bench", "gpu"], catch_exceptions=False)


def test_the_command_on_a_cpu():
    small = ["--device", "cpu", "--model", "demo", "--tiles", "1", "--expressions", "1", "--methods", "deep-layer"]
    told = CliRunner().invoke(
        app, ["bench", "gpu", *small, "--rounds", "1", "--new-tokens", "2"], catch_exceptions=False
    )
    assert told.exit_code == 0
    assert "bound" in told.stdout and "e2e" in told.stdout and "tflops" in told.stdout
