"""How much goes at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.cost.memory import estimated_bytes
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.pruning import Budget, Options, build
from deeplayer_cli.runtime import batching
from deeplayer_cli.runtime.batching import Batching, affordable_tokens
from tests.tiny import tiny_checkpoint


@given(st.integers(1, 64), st.integers(1, 10_000), st.integers(1, 5000))
def test_a_batch_keeps_both_limits_and_is_never_empty(rows, tokens, prompt_tokens):
    count = Batching(rows, tokens).count(prompt_tokens)
    assert 1 <= count <= rows
    assert count == 1 or count * prompt_tokens <= tokens
    assert count == rows or (count + 1) * prompt_tokens > tokens


@given(st.integers(1, 9), st.integers(1, 10_000), st.lists(st.integers(1, 5000), min_size=1))
def test_prompts_of_unequal_lengths_keep_both_limits_as_they_are_padded(rows, tokens, lengths):
    n = Batching(rows, tokens).fitting(lengths)
    assert 1 <= n <= min(rows, len(lengths))
    assert n == 1 or n * max(lengths[:n]) <= tokens
    assert n == min(rows, len(lengths)) or (n + 1) * max(lengths[: n + 1]) > tokens


@given(st.integers(1, 64), st.integers(1, 10_000), st.integers(1, 5000))
def test_halving_ends_at_one(rows, tokens, prompt_tokens):
    batches = Batching(rows, tokens)
    while (count := batches.count(prompt_tokens)) > 1:
        batches = batches.halved(prompt_tokens)
        assert batches.count(prompt_tokens) == count // 2


def test_memory_limits_what_goes_at_once(monkeypatch):
    checkpoint = tiny_checkpoint()
    shape = ModelShape.from_config(checkpoint.model.config)
    prompts = [PromptLengths.from_checkpoint(checkpoint, n_visual, 8) for n_visual in (4, 28)]
    limits = {}
    for name in ("none", "divprune"):
        method = build(name, Options(Budget(0.1)), shape.text.layers)
        limits[name] = []
        for free in (10_000_000, 20_000_000, 10**12, None):
            monkeypatch.setattr(batching, "free_bytes", lambda _, free=free: free)
            limits[name].append(affordable_tokens(shape, prompts, method, 10, torch.float32, torch.device("cpu")))
        few, twice, *enough = limits[name]
        assert twice == pytest.approx(2 * few, abs=1) and enough == [8192, 8192]
        for prompt in prompts:
            length = prompt.length(prompt.visual)
            assert few / length * estimated_bytes(shape, prompt, method, 10, 4) <= 5_000_000
    assert limits["divprune"][0] > limits["none"][0] > 0
