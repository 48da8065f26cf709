"""Selectors and places against slow references that follow the words of the papers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplayer_cli.pruning import Budget, Options, Prior, ScorerInputs, Selection, build, known_methods, token_places
from deeplayer_cli.pruning.independent_set import IndependentSet, independent_set, nearness
from deeplayer_cli.pruning.methods.dart import KeyNormScorer, UnlikePivots
from deeplayer_cli.pruning.methods.divprune import MaxMin, NoScore
from deeplayer_cli.pruning.methods.uniform import UniformScorer
from deeplayer_cli.pruning.topk import TopK
from tests.scorer_inputs import START, inputs_of


def random_inputs(seed: int, n_visual: int, batch: int = 2) -> tuple[torch.Tensor, ScorerInputs]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, n_visual, 3, generator=generator)
    places = torch.randint(0, 4, (batch, n_visual, 3), generator=generator).float()
    places[..., 2] %= 2
    return torch.rand(batch, n_visual, generator=generator), inputs_of(features, places, seed)


def slow_independent_set(
    selector: IndependentSet, scores: list[float], alike: list[list[bool]], n_keep: int
) -> list[int]:
    """Step by step, as the docstring counts them."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    kept = order[: max(1, int(selector.pivots * n_keep))]
    aside = {index for index in order if any(alike[index][pivot] for pivot in kept)}
    for index in order:
        if len(kept) < n_keep and index not in kept and index not in aside:
            kept.append(index)
            aside |= {other for other in order if alike[index][other]}
    kept += [index for index in order if index not in kept][: n_keep - len(kept)]
    return sorted(kept)


@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.3, 0.95), st.floats(0, 1))
@settings(max_examples=150)
def test_independent_set_is_the_greedy_one(seed: int, n_keep: int, threshold: float, semantic: float) -> None:
    scores, inputs = random_inputs(seed, 12)
    selector = IndependentSet(threshold=threshold, semantic=semantic)
    alike = selector.similarity(inputs.features, inputs.places) > threshold
    kept = selector(scores, inputs, n_keep)
    for row in range(2):
        expected = slow_independent_set(selector, scores[row].tolist(), alike[row].tolist(), n_keep)
        assert kept[row].tolist() == expected


def test_similarity_is_the_formula() -> None:
    _, inputs = random_inputs(1, 6, batch=1)
    similarity = IndependentSet(semantic=0.3).similarity(inputs.features, inputs.places)[0]
    for i in range(6):
        for j in range(6):
            a, b = inputs.features[0, i], inputs.features[0, j]
            semantic = (1 + float(a @ b) / float(a.norm() * b.norm())) / 2
            p, q = inputs.places[0, i].tolist(), inputs.places[0, j].tolist()
            spatial = math.exp(-(math.dist(p[:2], q[:2]) ** 2) / 2) if p[2] == q[2] else 0.0
            assert float(similarity[i, j]) == pytest.approx(0.3 * semantic + 0.7 * spatial, abs=1e-5)


def test_similarity_by_index_does_not_know_places() -> None:
    _, inputs = random_inputs(1, 6, batch=1)
    similarity = IndependentSet(semantic=0.3, spatial="index").similarity(inputs.features, inputs.places)[0]
    for i in range(6):
        for j in range(6):
            a, b = inputs.features[0, i], inputs.features[0, j]
            semantic = (1 + float(a @ b) / float(a.norm() * b.norm())) / 2
            assert float(similarity[i, j]) == pytest.approx(
                0.3 * semantic + 0.7 * math.exp(-((i - j) ** 2) / 2), abs=1e-5
            )


@pytest.mark.parametrize("method", ["deep-layer-mis", "d2pruner"])
def test_the_spatial_term_is_a_parameter(method: str) -> None:
    options = Options(Budget(0.5), prior=PRIOR)
    found = [build(name, options, 32).stages[0].selector for name in (method, f"{method}@spatial=index")]
    assert found == [IndependentSet(), IndependentSet(spatial="index")]


def test_tiles_and_thumbnail_are_never_near() -> None:
    places = token_places((2, 1), 3, 12)[None]
    near = nearness(places)[0]
    assert (near[:8, 8:] == 0).all() and (near[8:, 8:] > 0).all()
    assert near[0, 1] == pytest.approx(math.exp(-0.5))
    assert near[1, 4] == pytest.approx(math.exp(-0.5)), "neighbours across a tile's edge"


def test_an_independent_set_of_a_path() -> None:
    alike = torch.zeros(1, 5, 5, dtype=torch.bool)
    for i in range(4):
        alike[0, i, i + 1] = alike[0, i + 1, i] = True
    candidates = torch.ones(1, 5, dtype=torch.bool)
    assert independent_set(torch.tensor([[0, 1, 2, 3, 4]]), alike, candidates)[0].tolist() == [True, False] * 2 + [True]
    assert independent_set(torch.tensor([[4, 0, 3, 1, 2]]), alike, candidates)[0].nonzero()[:, 0].tolist() == [1, 3]


@given(st.integers(0, 10_000), st.integers(1, 9))
@settings(max_examples=80)
def test_max_min_is_the_greedy_one(seed: int, n_keep: int) -> None:
    _, inputs = random_inputs(seed, 9)
    kept = MaxMin()(NoScore()(inputs), inputs, n_keep)
    for row in range(2):
        unit = torch.nn.functional.normalize(inputs.features[row], dim=-1)
        distance = (1 - unit @ unit.T).tolist()
        taken = [max(range(9), key=lambda i: min(distance[i][j] for j in range(9) if j != i))]
        while len(taken) < n_keep:
            left = [i for i in range(9) if i not in taken]
            taken.append(max(left, key=lambda i: min(distance[i][j] for j in taken)))
        assert kept[row].tolist() == sorted(taken)


@given(st.integers(0, 10_000), st.integers(1, 20))
@settings(max_examples=80)
def test_every_pivot_takes_what_is_least_like_it(seed: int, n_keep: int) -> None:
    _, inputs = random_inputs(seed, 20)
    kept = UnlikePivots()(KeyNormScorer()(inputs), inputs, n_keep)
    for row in range(2):
        norms = [sum(abs(number) for number in key.flatten().tolist()) for key in inputs.keys[row].unbind(1)]
        falling = sorted(range(len(norms)), key=lambda index: -norms[index])
        read = [index for index in falling if inputs.prompt_tokens[row, index]]
        visual = [index - START for index in read if START <= index < START + 20][: min(4, n_keep)]
        text = [index - START - 20 for index in read if index >= START + 20][:4]
        pivots = [inputs.features[row, index] for index in visual]
        pivots += [inputs.text_features[row, index] for index in text]
        expected = set(visual)
        for turn, pivot in enumerate(pivots):
            cosines = {
                index: float(pivot @ other) / float(pivot.norm() * other.norm())
                for index, other in enumerate(inputs.features[row])
                if index not in expected
            }
            each, rest = divmod(n_keep - len(visual), len(pivots))
            expected |= set(sorted(cosines, key=cosines.__getitem__)[: each + (turn < rest)])
        assert kept[row].tolist() == sorted(expected)


@pytest.mark.parametrize(("n_keep", "step"), [(64, 2), (16, 4), (4, 8), (1, 16)])
def test_uniform_is_a_regular_grid(n_keep: int, step: int) -> None:
    places = token_places((1, 1), 1, 256)[None]
    inputs = inputs_of(torch.empty(1, 256, 0), places)
    kept = TopK()(UniformScorer()(inputs), inputs, n_keep)[0]
    wanted = [16 * row + column for row in range(0, 16, step) for column in range(0, 16, step)]
    assert kept.tolist() == wanted


@pytest.mark.parametrize(("grid", "n_tiles"), [((1, 1), 1), ((3, 2), 7), ((2, 3), 6), ((1, 5), 6)])
def test_places_are_where_the_tokens_are(grid: tuple[int, int], n_tiles: int) -> None:
    columns, rows = grid
    places = token_places(grid, n_tiles, n_tiles * 16)
    assert places.shape == (n_tiles * 16, 3)
    tiles = places[: columns * rows * 16]
    assert len({tuple(place) for place in places.tolist()}) == len(places)
    assert tiles[:, 0].max() == 4 * columns - 0.5 and tiles[:, 1].max() == 4 * rows - 0.5
    assert (tiles[:, 2] == 0).all() and (places[columns * rows * 16 :, 2] == 1).all()
    assert places[:5].tolist() == [[0.5, 0.5, 0], [1.5, 0.5, 0], [2.5, 0.5, 0], [3.5, 0.5, 0], [0.5, 1.5, 0]]


PRIOR = Prior(torch.ones(4), torch.ones(4), layer=2)
METHODS = [build(name, Options(Budget(0.5), prior=PRIOR), 32) for name in known_methods()]
SELECTORS = {stage.selector for method in METHODS for stage in method.stages}


@given(st.integers(0, 1000), st.integers(1, 48))
@settings(max_examples=30)
def test_every_selector_keeps_what_was_promised(seed: int, n_keep: int) -> None:
    scores, inputs = random_inputs(seed, 48)
    n_keys = inputs.prompt_tokens.shape[1]
    inputs = inputs._replace(
        places=token_places((1, 2), 3, 48).expand(2, -1, -1),
        vision_keys=torch.randn(2, 48, 3),
        weights=torch.ones(2, 48),
        values=torch.randn(2, 2, n_keys, 4),
        rotation=(torch.rand(1, n_keys, 4), torch.rand(1, n_keys, 4)),
    )
    for selector in SELECTORS:
        selected = selector(scores, inputs, n_keep)
        kept = selected.indices if isinstance(selected, Selection) else selected
        assert kept.shape == (2, n_keep) and kept.dtype == torch.int64
        assert (kept[:, 1:] > kept[:, :-1]).all() and kept.min() >= 0 and kept.max() < 48
