"""The benchmark's honesty: what is timed is checked, and a wrong answer gets no speed."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from unittest.mock import patch

import orjson
import pytest
import torch
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.bench import SUITES, BenchPlan, PeakRates, measure, require_positions, roofline
from deeplayer_cli.bench.photographs import Photographs
from deeplayer_cli.bench.subject import KnownDraft, Subject
from deeplayer_cli.bench.timing import Case
from deeplayer_cli.checkpoints import read_layout
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.tiling import Tiling
from tests.commands.test_cli import refusal, run
from tests.tiny import tiny_checkpoint

PLAN = BenchPlan(tiles=(5,), keeps=(0.2,), expressions=(1, 3), n_new=12)


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


@pytest.mark.parametrize("suite", [name for name in SUITES if name not in ("pipeline", "peer")])
def test_every_case_says_what_transformers_says(checkpoint, suite):
    cases = list(SUITES[suite](checkpoint, PLAN))
    results = list(measure(cases, 1, torch.device("cpu")))
    assert [result.case for result in results] == cases
    assert len(cases) > 3 and all(result.speed is not None for result in results)
    asked = [case for case in cases if case.expected()]
    assert asked == cases  # nothing is compared with nothing
    assert suite != "share" or any("union" in case.name for case in cases)


def test_a_scout_is_timed_and_counted(checkpoint):
    plan = BenchPlan(tiles=(5,), keeps=(0.2,), methods=("scout-focus", "deep-layer"))
    cases = {case.name: case for case in SUITES["prefill"](checkpoint, plan)}
    assert {"scout-focus 0.2", "deep-layer 0.2", "unpruned"} <= cases.keys()
    (result,) = measure([cases["scout-focus 0.2"]], 1, torch.device("cpu"))
    assert result.speed is not None and cases["scout-focus 0.2"].flops != cases["unpruned"].flops


@pytest.mark.parametrize("suite", ["prefill", "share"])
def test_no_engine_is_built_while_a_case_is_timed(checkpoint, suite):
    cases = list(SUITES[suite](checkpoint, PLAN))
    with patch("deeplayer_cli.bench.subject.Engine", side_effect=AssertionError):
        for case in cases:
            case.run(case.prepare())


@pytest.mark.parametrize(("tiling", "n_tiles"), [(Tiling(), 7), (Tiling(448, max_tiles=1), 1), (Tiling(64, 1, 12), 13)])
def test_the_pipeline_delivers_what_pillow_makes(tiling, n_tiles):
    photographs = Photographs.make(3, tiling, workers=2)
    seen = photographs.delivered()
    assert seen == photographs.bare() and len(set(seen)) == 3
    assert {shape for shape, _ in seen} == {(n_tiles, 3, tiling.tile_size, tiling.tile_size)}
    assert photographs.n_tiles == n_tiles


def test_wrong_drafts_stay_within_the_vocabulary():
    wrong = KnownDraft({(5,): [0, 1, 2, 6]}, opening=4, share=0.0)((5,), ())
    assert all(token in range(7) for token in wrong)  # of a vocabulary of 7: 6 is its last token
    assert all(token != right for token, right in zip(wrong, [0, 1, 2, 6], strict=True))


def test_prompts_longer_than_the_model_are_refused(checkpoint):
    config = checkpoint.model.config
    known = config.text_config.max_position_embeddings
    require_positions(checkpoint, config, PLAN)
    few = max(1, known // checkpoint.tokens_per_tile)
    for plan in (replace(PLAN, tiles=(1, few + 1)), replace(PLAN, n_new=known)):
        with pytest.raises(DeeplayerError, match=f"has {known}: use smaller --tiles or --new-tokens"):
            require_positions(checkpoint, config, plan)


def test_a_wrong_answer_gets_no_speed():
    cases = [Case("g", "right", lambda _: 1, lambda: 1), Case("g", "wrong", lambda _: 1, lambda: 2)]
    right, wrong = measure(cases, 2, torch.device("cpu"))
    assert right.speed is not None and wrong.speed is None


def test_cases_take_turns_and_are_compared_round_by_round():
    order, clock = [], itertools.accumulate([0, 4, 0, 1, 0, 2, 0, 2])  # seconds: 4 and 1, then 2 and 2
    cases = [
        Case("g", name, lambda name: order.append(name) or 1, lambda: 1, times=times, prepare=lambda name=name: name)
        for name, times in (("a", 1), ("b", 2))
    ]
    with patch.object(time, "perf_counter", clock.__next__):
        first, second = measure(cases, 2, torch.device("cpu"))
    assert order == ["a", "b", "a", "b", "a", "b"]  # warm-up, then two rounds
    assert (first.seconds.least, first.seconds.most, second.seconds.median) == (2, 4, 3)
    assert second.speed is not None and (second.speed.least, second.speed.most) == (0.5, 2)


@pytest.mark.parametrize(("share", "accepted"), [(0.0, 0.0), (1.0, 1.0)])
def test_known_drafts_are_right_as_often_as_told(checkpoint, share, accepted):
    subject = Subject(checkpoint, 2)
    (answer,) = subject.reference("none", 1.0, 12)
    draft = KnownDraft({tuple(subject.rows[0].expression_ids): answer}, opening=4, share=share)
    (told,) = subject.answers(subject.engine("none", 1.0, draft), 12)
    assert told.token_ids == answer
    assert told.n_drafted > 0 and told.n_accepted == accepted * told.n_drafted


def test_command_line():
    arguments = ("bench", "prefill", "--model", "demo", "--tiles", "1", "--rounds", "1")
    told = orjson.loads(run(*arguments, "--json").stdout)
    assert [case["fewer_flops"] > 1 for case in told["cases"] if case["fewer_flops"]] == [False, True, True, True]
    assert [case["same_answers"] for case in told["cases"]] == [True] * 5
    assert told["model"] == "demo" and told["rounds"] == 1
    assert "transformers" in run(*arguments).stdout.decode()


def test_roofline_of_the_8b():
    """Against figures worked out by hand."""
    plan = BenchPlan(tiles=(7, 13), keeps=(0.1,), n_new=24)
    device = PeakRates(flops=800e12, bandwidth=3e12, bytes_per_number=2)
    unpruned, _, _, pruned = roofline(read_layout("random:8b"), plan, device)
    assert unpruned.visual_tokens == 1792
    assert unpruned.vision == pytest.approx(6.5e-3, rel=0.03)
    assert unpruned.prefill == pytest.approx(33.7e-3, rel=0.05)
    assert pruned.prefill == pytest.approx(26.8e-3, rel=0.02)
    assert unpruned.decode == pytest.approx(114.7e-3, rel=0.05)
    assert pruned.drafted == pytest.approx(4 / 23 * pruned.decode)
    assert unpruned.kv_bytes == pytest.approx(131e3 * 1860, rel=0.02)


def test_a_roofline_needs_rates():
    assert "give --tflops and --bandwidth" in refusal(run("bench", "roofline"))
    rates = ["--tflops", "1", "--bandwidth", "1"]
    assert "use smaller --tiles or --new-tokens" in refusal(run("bench", "roofline", *rates, "--new-tokens", "9" * 11))


@pytest.mark.parametrize("tiles", ["many", "0", "-3", "9" * 80, "1.5", "", "4,x"])
def test_numbers_of_tiles_are_counts(tiles):
    with pytest.raises(DeeplayerError, match="--tiles must be integers from 1 to 9999"):
        CliRunner().invoke(app, ["bench", "prefill", f"--tiles={tiles}"], catch_exceptions=False)
