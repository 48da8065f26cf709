"""Selectors of published methods against `rules`, which follow the papers one token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplayer_cli.device import float64
from deeplayer_cli.pruning import Budget, Options, build, token_places
from tests.pruning import rules
from tests.scorer_inputs import START, inputs_of

N = 120


def stage_of(name: str):
    return build(name, Options(Budget(0.5)), 32).stages[0]


def random_inputs(seed: int, n: int = N, width: int = 6):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, n, width, generator=generator)
    inputs = inputs_of(features, torch.zeros(2, n, 3), seed)._replace(
        vision_keys=torch.randn(2, n, 5, generator=generator), weights=torch.ones(2, n)
    )
    return torch.rand(2, n, generator=generator), inputs


def check_merged(selection, row: int, rule: rules.Merged, features: torch.Tensor) -> None:
    kept, merged = rule
    assert selection.indices[row].tolist() == kept
    for index, found in zip(kept, selection.features[row], strict=True):
        assert torch.allclose(found, merged.get(index, features[index]), atol=1e-5)


@given(st.integers(0, 10_000), st.integers(1, N))
@settings(max_examples=25)
def test_visionzip_merges_what_is_not_dominant(seed: int, n_keep: int) -> None:
    scores, inputs = random_inputs(seed)
    selection = stage_of("visionzip").selector(scores, inputs, n_keep)
    for row in range(2):
        rule = rules.visionzip(scores[row].tolist(), inputs.vision_keys[row], inputs.features[row], n_keep)
        check_merged(selection, row, rule, inputs.features[row])
    if n_keep >= 7:
        assert (selection.weights.sum(1) == N).all(), "every token is in one that is kept"


@given(st.integers(0, 10_000), st.integers(6, N))
@settings(max_examples=25)
def test_sparsevlm_recycles_what_it_drops(seed: int, n_keep: int) -> None:
    scores, inputs = random_inputs(seed)
    selection = stage_of("sparsevlm").selector(scores, inputs, n_keep)
    for row in range(2):
        rule = rules.sparsevlm(scores[row].tolist(), inputs.features[row], n_keep)
        check_merged(selection, row, rule, inputs.features[row])


@pytest.mark.parametrize("n_keep", [1, 2, 3])
def test_sparsevlm_with_a_budget_below_its_clusters(n_keep: int) -> None:
    scores, inputs = random_inputs(0)
    selection = stage_of("sparsevlm").selector(scores, inputs, n_keep)
    assert selection.indices.shape == (2, n_keep) and (selection.indices.diff() > 0).all()
    assert (selection.indices == scores.argmax(1, keepdim=True)).any(1).all()


@given(st.integers(0, 10_000), st.integers(1, N), st.sampled_from(["0.5", "0", "1", "0.3"]))
@settings(max_examples=25)
def test_vispruner_removes_duplicates(seed: int, n_keep: int, important: str) -> None:
    scores, inputs = random_inputs(seed)
    kept = stage_of(f"vispruner@important={important}").selector(scores, inputs, n_keep)
    for row in range(2):
        rule = rules.vispruner(scores[row].tolist(), inputs.features[row], n_keep, float(important))
        assert kept[row].tolist() == rule


@pytest.mark.parametrize("n_nearest", [1, 3])
def test_vispruner_finds_likeness_beyond_the_nearest_tokens(monkeypatch, n_nearest: int) -> None:
    scores, inputs = random_inputs(7)
    selector = stage_of("vispruner").selector
    usual = selector(scores, inputs, 20)
    monkeypatch.setattr("deeplayer_cli.pruning.methods.vispruner._NEAREST", n_nearest)
    assert torch.equal(selector(scores, inputs, 20), usual)
    assert usual[0].tolist() == rules.vispruner(scores[0].tolist(), inputs.features[0], 20)


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=25)
def test_cdpruner_takes_the_largest_determinant(seed: int, n_keep: int) -> None:
    _, inputs = random_inputs(seed, n=14, width=9)
    text = inputs.text_features
    inputs = inputs._replace(text_embeddings=text)
    stage = stage_of("cdpruner")
    scores = stage.scorer(inputs)
    kept = stage.selector(scores, inputs, n_keep)
    for row in range(2):
        read = [index for index in range(text.shape[1]) if inputs.prompt_tokens[row, START + 14 + index]]
        cosines = [
            -sum(rules.cosine(one, text[row, index]) for index in read) / len(read) for one in inputs.features[row]
        ]
        low, high = min(cosines), max(cosines)
        relevance = [(one - low + 1e-6) / (high - low) for one in cosines]
        assert scores[row].tolist() == pytest.approx(relevance, abs=1e-5)
        assert kept[row].tolist() == rules.cdpruner(scores[row].tolist(), inputs.features[row], n_keep)


def test_cdpruner_keeps_the_same_on_a_device_without_float64(monkeypatch) -> None:
    _, inputs = random_inputs(5, width=40)
    inputs = inputs._replace(text_embeddings=inputs.text_features)
    stage = stage_of("cdpruner")
    scores = stage.scorer(inputs)
    usual = stage.selector(scores, inputs, 30)
    monkeypatch.setattr(float64, "_WITHOUT", {"cpu"})
    found = stage.scorer(inputs)
    assert (scores.dtype, found.dtype) == (torch.float64, torch.float32)
    assert torch.equal(found, scores.float())
    assert torch.equal(stage.selector(found, inputs, 30), usual)


def test_cdpruner_goes_on_when_nothing_enlarges_the_determinant() -> None:
    scores, inputs = random_inputs(3, n=30, width=4)
    selector = stage_of("cdpruner").selector
    few, more = (selector(scores, inputs, n) for n in (4, 9))
    for row in range(2):
        first = set(few[row].tolist())
        rest = rules.falling(scores[row].tolist(), [index for index in range(30) if index not in first])
        assert set(more[row].tolist()) == first | set(rest[:5])


@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (1, 3), (3, 2), (2, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_ivc_prune_keeps_places_and_foreground(grid: tuple[int, int], seed: int) -> None:
    n_tiles = grid[0] * grid[1] + (grid != (1, 1))
    n, n_text, heads, width = 256 * n_tiles, 12, 2, 8
    generator = torch.Generator().manual_seed(seed)
    places = token_places(grid, n_tiles, n)[None]
    values = 3 * torch.randn(1, heads, START + n + n_text, width, generator=generator)
    angles = torch.arange(START + n + n_text)[:, None] / 50 ** (torch.arange(width // 2) / (width // 2))
    rotation = tuple(part.repeat(1, 2)[None] for part in (angles.cos(), angles.sin()))
    inputs = inputs_of(torch.empty(1, n, 0), places)._replace(
        values=values, rotation=rotation, prompt_tokens=torch.arange(START + n + n_text)[None] < START + n + n_text - 3
    )
    stage = stage_of("ivc-prune")
    kept = stage.selector(stage.scorer(inputs), inputs, n // 2)[0].tolist()

    real = START + n + n_text - 3  # the last three are padding
    products = values[0, :, :real] @ values[0, :, :real].mT / math.sqrt(width)
    similarity = products.softmax(-1).mean(0)
    visual = tuple(part[0, START : START + n] for part in rotation)
    priority, more = rules.ivc_prune(similarity, list(range(START + n + 2, real)), START, visual, grid)
    if len(priority) > n // 2:
        assert kept == priority[: n // 2]
    else:
        assert kept == sorted(priority + more[: n // 2 - len(priority)])
