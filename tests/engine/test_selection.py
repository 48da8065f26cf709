"""The selection path: compiled over many shapes, and what a broken method is told."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from deeplayer_cli.engine.compiler import Compiler
from deeplayer_cli.engine.result_check import refuse_faults
from deeplayer_cli.engine.selection import StageSelector
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning import Budget, Options, Scorer, ScorerInputs, Selection, Selector, build

START, HEADS, KV_HEADS, DIM = 3, 4, 2, 8


def random_inputs(rng: random.Random, generator: torch.Generator) -> ScorerInputs:
    batch, n_visual, n_text = (rng.randint(*limits) for limits in ((1, 9), (20, 400), (5, 40)))
    n_keys = START + n_visual + n_text
    return ScorerInputs(
        torch.arange(batch),
        START,
        n_visual,
        torch.ones(batch, n_keys, dtype=torch.bool),
        queries=torch.randn(batch, HEADS, 1, DIM, generator=generator),
        visible=torch.ones(batch, 1, n_keys, dtype=torch.bool),
        keys=torch.randn(batch, KV_HEADS, n_keys, DIM, generator=generator),
    )


def test_fifty_shapes_recompile_at_most_once() -> None:
    """For torch compiles a batch of one on its own."""
    (stage,) = build("deep-layer", Options(Budget(0.1)), 8).stages
    eager, compiled = (StageSelector(stage, "deep-layer", compiler=wanted) for wanted in (None, Compiler()))
    torch._dynamo.reset()
    counters.clear()
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(50):
        one = random_inputs(rng, generator)
        n_keep = rng.randint(2, one.n_visual)
        assert torch.equal(compiled(one, n_keep)[0].indices, eager(one, n_keep)[0].indices)
    assert 0 < counters["stats"]["unique_graphs"] <= 2


class Wrong(Scorer):
    def __init__(self, scores):
        self.scores = scores

    def __call__(self, inputs):
        return self.scores(len(inputs.seeds), inputs.n_visual)


class Fixed(Selector):
    def __init__(self, selected, *, adaptive=False, merges=False):
        self.selected, self.adaptive, self.merges = selected, adaptive, merges

    def __call__(self, scores, inputs, n_keep):
        return self.selected(len(scores), n_keep)


def first(batch, n_keep):
    return torch.arange(n_keep).expand(batch, -1)


def select_and_check(select, inputs, n_keep, *, is_model_finite=True):
    selection, check = select(inputs, n_keep)
    assert ((selection.indices >= 0) & (selection.indices < inputs.n_visual)).all()  # whatever the method returned
    refuse_faults([check], lambda: is_model_finite)


def test_every_result_is_checked_not_only_the_first() -> None:
    (stage,) = build("random", Options(Budget(0.25)), 8).stages
    results = [torch.zeros(2, 20), torch.full((2, 20), torch.nan)]
    select = StageSelector(replace(stage, scorer=Wrong(lambda b, n: results.pop(0)), selector=Fixed(first)), "mine")
    inputs = ScorerInputs(torch.arange(2), START, 20, torch.ones(2, 30, dtype=torch.bool))
    select_and_check(select, inputs, 5)
    with pytest.raises(DeeplayerError, match="method mine is broken: it returned scores that are not finite"):
        select_and_check(select, inputs, 5)


def test_scores_of_a_model_that_overflowed_are_no_fault_of_the_method() -> None:
    (stage,) = build("random", Options(Budget(0.25)), 8).stages
    scores = Wrong(lambda b, n: torch.full((b, n), torch.nan))
    select = StageSelector(replace(stage, scorer=scores, selector=Fixed(first)), "mine")
    inputs = ScorerInputs(torch.arange(2), START, 20, torch.ones(2, 30, dtype=torch.bool))
    select_and_check(select, inputs, 5, is_model_finite=False)


def test_every_check_of_a_batch_is_read() -> None:
    (stage,) = build("random", Options(Budget(0.25)), 8).stages
    inputs = ScorerInputs(torch.arange(2), START, 20, torch.ones(2, 30, dtype=torch.bool))
    good, bad = (
        StageSelector(replace(stage, scorer=Wrong(torch.zeros), selector=Fixed(selected)), name)(inputs, 5)[1]
        for name, selected in (("good", first), ("bad", lambda b, k: first(b, k) + 16))
    )
    refuse_faults([good, good], lambda: True)
    for checks in ([bad, good], [good, bad]):
        with pytest.raises(DeeplayerError, match="method bad is broken"):
            refuse_faults(checks, lambda: True)


@pytest.mark.parametrize(
    ("scores", "selector", "reason"),
    [
        (lambda b, n: torch.full((b, n), torch.nan), Fixed(first), "scores that are not finite"),
        (lambda b, n: torch.zeros(b, 5), Fixed(first), r"\(2, 5\) scores for 2 prompts of 20 visual tokens"),
        (torch.zeros, Fixed(lambda b, k: first(b, k).flip(1)), "not sorted, unique and below 20"),
        (torch.zeros, Fixed(lambda b, k: first(b, k) // 2), "not sorted, unique and below 20"),
        (torch.zeros, Fixed(lambda b, k: first(b, k) + 16), "not sorted, unique and below 20"),
        (torch.zeros, Fixed(lambda b, k: first(b, k) - 1), "not sorted, unique and below 20"),
        (torch.zeros, Fixed(lambda b, k: first(b, k - 1)), r"indices of shape \(2, 4\), not int64 \(2, 5\)"),
        (torch.zeros, Fixed(lambda b, k: first(b, k).float()), "torch.float32 indices"),
        (torch.zeros, Fixed(lambda b, k: Selection(first(b, k), torch.full((b,), k))), "counts that are not between"),
        (torch.zeros, Fixed(first, adaptive=True), "or do not match its `adaptive`"),
        (
            torch.zeros,
            Fixed(lambda b, k: Selection(first(b, k), torch.full((b,), k + 1)), adaptive=True),
            "counts that are not between 1 and 5",
        ),
        (
            torch.zeros,
            Fixed(lambda b, k: Selection(first(b, k), features=torch.zeros(b, k, 3))),
            "features that do not match its `merges`",
        ),
        (torch.zeros, Fixed(first, merges=True), "features that do not match its `merges`"),
        (torch.zeros, Fixed(lambda b, k: first(b, k).tolist()), "list in place of a tensor of indices"),
        (
            torch.zeros,
            Fixed(lambda b, k: Selection(first(b, k), features=torch.zeros(b, k - 1, 3)), merges=True),
            r"features of shape \(2, 4, 3\), not \(2, 5, 8\)",
        ),
        (
            torch.zeros,
            Fixed(lambda b, k: Selection(first(b, k), None, torch.zeros(b, k, 8), torch.ones(b, 1)), merges=True),
            r"weights of shape \(2, 1\), not \(2, 5\)",
        ),
    ],
)
def test_what_a_method_returns_is_checked(scores, selector, reason):
    (stage,) = build("random", Options(Budget(0.25)), 8).stages
    select = StageSelector(replace(stage, scorer=Wrong(scores), selector=selector), "mine")
    prompts = torch.ones(2, 30, dtype=torch.bool)
    inputs = ScorerInputs(torch.arange(2), START, 20, prompts, features=torch.zeros(2, 20, 8))
    with pytest.raises(DeeplayerError, match=f"method mine is broken: it returned .*{reason}"):
        select_and_check(select, inputs, 5)
