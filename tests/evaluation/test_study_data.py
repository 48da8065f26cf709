"""Outcomes and costs of a study: what is written is read again, and schedules keep their share of the layers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deeplayer_cli import checkpoints
from deeplayer_cli.bench.subject import Subject
from deeplayer_cli.cost.flops import prefill_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.engine import Engine
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import MethodRun
from deeplayer_cli.evaluation.outcomes import outcomes_json, read_outcomes
from deeplayer_cli.evaluation.pricing import PRICED, TILES, computed_costs, cpu_seconds, method_of, stretched
from deeplayer_cli.pruning import Budget, Method, Options, build
from tests.tiny import tiny_checkpoint


def run_of(label, keep=0.1, layer=None, ids=("a", "b", "c"), right=(True, False, True)):
    return MethodRun(label, keep, layer, ids, ("1.png", "1.png", "2.png"), right, 4, 1, 0, keep)


def test_outcomes_come_back_in_the_order_of_the_first_run(tmp_path):
    runs = [run_of("none", 1.0), run_of("dart", layer=2, ids=("c", "a", "b"), right=(False, True, True))]
    (tmp_path / "outcomes.json").write_bytes(outcomes_json(runs))
    none, dart = read_outcomes(tmp_path / "outcomes.json")
    assert none.right == (True, False, True) and none.images == (0, 0, 1)
    assert dart.right == (True, True, False) and dart.ids == none.ids
    assert (dart.label, dart.keep, dart.layer, dart.n_rows, dart.n_no_box) == ("dart", 0.1, 2, 4, 1)


def test_runs_of_other_rows_are_refused():
    with pytest.raises(DeeplayerError, match="dart and none did not answer the same rows"):
        outcomes_json([run_of("none"), run_of("dart", ids=("a", "b", "d"))])


@pytest.mark.parametrize(
    ("label", "layer", "option"),
    [
        ("deep-layer", 6, 24),
        ("fastv@layer=1", 1, 4),
        ("pyramiddrop", 2, None),
        ("scout-focus", 5, 20),
        ("freeze@layer=2", 2, 8),
        ("divprune", 0, 0),
    ],
)
def test_a_schedule_keeps_its_share_of_the_layers(label, layer, option):
    """The demo's layer 6 of 8 costs at the 8B's shape what layer 24 of 32 does."""
    (cost,) = computed_costs([run_of(label, 0.2, layer)], checkpoints.read_layout("demo"))
    layout = checkpoints.read_layout(PRICED)
    shape = ModelShape.from_config(layout.config)
    n_expression = len(layout.tokenizer.encode_expression("the small red circle"))
    prompt = PromptLengths.from_checkpoint(layout, TILES * shape.tokens_per_tile, n_expression)
    method = build(label.split("@")[0], Options(Budget(0.2), layer=option), 32)
    unpruned = prefill_flops(shape, prompt, Method("none"))
    assert cost.lm_flops == pytest.approx(prefill_flops(shape, prompt, method) / unpruned, rel=1e-12)
    assert cost.lm_flops < cost.flops < 1 and cost.key == (label, 0.2, layer)


def test_the_unpruned_model_costs_all():
    (cost,) = computed_costs([run_of("none", 1.0)], checkpoints.read_layout("demo"))
    assert (cost.mean_keep, cost.lm_flops, cost.flops) == (1, 1, 1)


def test_scouts_and_frozen_layers_are_stretched():
    demo = checkpoints.read_layout("demo")
    scout = stretched(method_of(run_of("scout-focus@updates=1", layer=5), demo), 4).scout
    assert (scout.layer, scout.updates) == (20, 4)
    assert stretched(method_of(run_of("freeze", layer=3), demo), 4).freeze_after_layer == 12
    assert stretched(method_of(run_of("d2pruner", layer=6), demo), 4).layer == 24


def test_a_line_with_other_options_has_no_price():
    for label in ("deep-layer@layer=6@query=text", "deep-layer@query=text", "none@max-tiles=2"):
        with pytest.raises(DeeplayerError, match=r"query|max-tiles"):
            computed_costs([run_of(label)], checkpoints.read_layout("demo"))


def test_a_depth_that_is_no_multiple_is_refused():
    with pytest.raises(DeeplayerError, match="a schedule of 24 layers cannot be stretched to 32"):
        computed_costs([run_of("none", 1.0)], checkpoints.read_layout("random:1b"))


def test_time_passes():
    checkpoint = tiny_checkpoint("llama")
    assert cpu_seconds(Subject(checkpoint, 1), Engine(checkpoint, Method("none"))) > 0


@pytest.mark.parametrize("module", ["evaluation.outcomes", "evaluation.pricing", "report.study", "report.study_plot"])
def test_the_modules_say_how_they_are_called(module):
    for arguments, exit_code in (([], 2), (["--help"], 0)):
        command = [sys.executable, "-m", f"deeplayer_cli.{module}", *arguments]
        finished = subprocess.run(command, capture_output=True, timeout=100)
        told = finished.stderr if exit_code else finished.stdout
        assert finished.returncode == exit_code and told.startswith(f"usage: python -m deeplayer_cli.{module}".encode())
