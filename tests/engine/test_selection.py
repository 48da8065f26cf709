"""The compiled selection path over many shapes."""

from __future__ import annotations

import random

import torch
from torch._dynamo.utils import counters

from deeplayer_cli.engine.selection import selection
from deeplayer_cli.pruning import Budget, Evidence, Options, build

START, HEADS, KV_HEADS, DIM = 3, 4, 2, 8


def evidence(rng: random.Random, generator: torch.Generator) -> Evidence:
    batch, n_visual, n_text = (rng.randint(*limits) for limits in ((1, 9), (20, 400), (5, 40)))
    n_keys = START + n_visual + n_text
    queries = torch.randn(batch, HEADS, 1, DIM, generator=generator)
    keys = torch.randn(batch, KV_HEADS, n_keys, DIM, generator=generator)
    visible = torch.ones(batch, 1, n_keys, dtype=torch.bool)
    nothing = torch.empty(batch, n_visual, 0)
    return Evidence(queries, keys, visible, torch.arange(batch), START, n_visual, nothing, nothing, nothing, nothing)


def test_fifty_shapes_recompile_at_most_once() -> None:
    """For torch compiles a batch of one on its own."""
    (stage,) = build("deep-layer", Options(Budget(0.1)), 8).stages
    eager, compiled = (selection(stage, compiled=wanted) for wanted in (False, True))
    torch._dynamo.reset()
    counters.clear()
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(50):
        one = evidence(rng, generator)
        n_keep = rng.randint(2, one.n_visual)
        assert torch.equal(compiled(one, n_keep), eager(one, n_keep))
    assert 0 < counters["stats"]["unique_graphs"] <= 2
