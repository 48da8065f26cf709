"""The engine at the 8B's shapes on a device that only counts: what a GPU would run, and where it would wait.

The counts are exact and need no GPU. One program makes all of them, because it registers a device of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from torch.utils import backend_registration

from deeplayer_cli.checkpoints import random_weights
from deeplayer_cli.cost.memory import estimated_bytes
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.pruning import Budget, Options, build
from tests.engine.fake_device import MAX_NEW_TOKENS, MEASURED, METHODS, MODEL, N_LAYERS, TILES

CASES = (*METHODS, "union", "adaptive")
KERNELS_A_LAYER = 40  # at most
# The rounds of the independent set, three here: a round without need would cost more than to ask. And the number of
# tokens of a union, or of an adaptive budget, which gives the shapes of all that follows.
KNOWN_WAITS = {
    "deep-layer-mis": {"pruning/independent_set.py": 3},
    "union": {"engine/pruned_layers.py": 1},
    "adaptive": {"engine/types.py": 1},
}

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)


@pytest.fixture(scope="module")
def cases():
    program = [sys.executable, "-m", "tests.engine.fake_device"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr  # a tensor on the wrong device, for one, is an error
    return json.loads(done.stdout)


def phases(case):
    return [case[phase] for phase in ("encode", "prefix", "prefill", "decode")]


@pytest.mark.parametrize("name", CASES)
def test_the_host_waits_for_nothing_but_one_copy_of_each_pass(cases, name):
    case = cases[name]
    for phase in ("encode", "prefix", "prefill", "decode"):
        assert case[phase]["blocking"] == {}
        waits = {place.rpartition(":")[0]: n for place, n in case[phase]["waits"].items()}
        assert waits == (KNOWN_WAITS.get(name, {}) if phase == "prefill" else {})
    # The check of what a method returned; the tokens of the prefill and of each pass; at the end the kept tokens, and
    # which of them are padding.
    reads = {phase: sum(case[phase]["reads"].values()) for phase in ("encode", "prefix", "prefill", "decode")}
    assert reads == {
        "encode": 0,
        "prefix": 0,
        "prefill": name != "none",
        "decode": 1 + case["passes"] + 1 + (name == "adaptive"),
    }


@pytest.mark.parametrize("name", CASES)
def test_no_attention_has_both_a_mask_and_grouped_heads(cases, name):
    for phase in ("prefix", "prefill", "decode"):
        assert cases[name][phase]["grouped"] == {}


def test_a_decode_pass_runs_few_kernels_in_each_layer(cases):
    n_passes = cases["none"]["passes"]
    assert n_passes == cases["one layer more"]["passes"] > 0
    more = cases["one layer more"]["decode"]["kernels"] - cases["none"]["decode"]["kernels"]
    assert 0 < more <= KERNELS_A_LAYER * n_passes


@pytest.mark.parametrize("method", MEASURED)
def test_the_estimate_of_memory_is_at_most_a_fifth_above_the_peak(cases, method):
    case, n_rows = cases[f"{method}, all layers"], 4
    peak = max(case[phase]["peak"] for phase in ("encode", "prefix", "prefill", "decode"))
    layout = random_weights.read(MODEL)
    shape = ModelShape.from_config(layout.config)
    prompt = PromptLengths.from_checkpoint(layout, TILES * shape.tokens_per_tile, case["expression"])
    prompt = replace(prompt, draft=MAX_NEW_TOKENS - 1)
    built = build(method, Options(Budget(0.1)), shape.text.layers)
    assert peak <= n_rows * estimated_bytes(shape, prompt, built, MAX_NEW_TOKENS, 2) <= 1.2 * peak


@pytest.mark.parametrize("name", METHODS)
def test_no_method_needs_more_memory_than_its_estimate(cases, name):
    case, n_rows, layout = cases[name], 4, random_weights.read(MODEL)
    peak = max(case[phase]["peak"] for phase in ("encode", "prefix", "prefill", "decode"))
    layout.config.text_config.num_hidden_layers = N_LAYERS
    shape = ModelShape.from_config(layout.config)
    prompt = PromptLengths.from_checkpoint(layout, TILES * shape.tokens_per_tile, case["expression"])
    estimate = estimated_bytes(shape, prompt, build(name, Options(Budget(0.1)), N_LAYERS), MAX_NEW_TOKENS, 2)
    assert peak <= n_rows * estimate


@pytest.mark.parametrize("name", [*METHODS, "random, no float64", "cdpruner, no float64", "adaptive, no float64"])
def test_nothing_needs_float64_of_a_device_without_it(cases, name):
    assert all(phase["doubles"] == {} for phase in phases(cases[name]))
    assert cases["adaptive"]["prefill"]["doubles"]  # a device with float64 uses it
