"""Scorers, selectors, budgets and the registry, on tensors alone."""

from __future__ import annotations

import math
from pkgutil import iter_modules

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning import Budget, Options, Parameter, ScorerInputs, build, known_methods, methods
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.methods.random import RandomScorer
from deeplayer_cli.pruning.methods.visionzip_nomerge import ClassAttentionScorer
from deeplayer_cli.pruning.topk import topk

NAMES = [module.name.replace("_", "-") for module in iter_modules(methods.__path__)]
HEADS, KV_HEADS, DIM, VISUAL_START, N_VISUAL = 4, 2, 8, 3, 10


def make_inputs(visible: torch.Tensor, seed: int = 0) -> ScorerInputs:
    """Random queries and keys for a (B, R, S) visibility."""
    batch, rows, n_keys = visible.shape
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(batch, HEADS, rows, DIM, generator=generator, dtype=torch.float64)
    keys = torch.randn(batch, KV_HEADS, n_keys, DIM, generator=generator, dtype=torch.float64)
    features = torch.randn(batch, n_keys - VISUAL_START, 4, generator=generator)
    places = torch.rand(batch, N_VISUAL, 3, generator=generator)
    class_attention = torch.rand(batch, N_VISUAL, 5, generator=generator)
    return ScorerInputs(
        torch.arange(batch),
        VISUAL_START,
        N_VISUAL,
        torch.ones(batch, n_keys, dtype=torch.bool),
        queries=queries,
        visible=visible,
        keys=keys,
        features=features[:, :N_VISUAL],
        text_features=features[:, N_VISUAL:],
        places=places,
        class_attention=class_attention,
    )


def plain_scores(inputs: ScorerInputs) -> list[list[float]]:
    """The formula, one number at a time."""
    scores = []
    for queries, keys, visible in zip(inputs.queries, inputs.keys, inputs.visible, strict=True):
        rows = [row for row in range(visible.shape[0]) if visible[row].any()]
        total = [0.0] * N_VISUAL
        for head in range(HEADS):
            for row in rows:
                exponents = {
                    key: math.exp(float(queries[head, row] @ keys[head * KV_HEADS // HEADS, key]) / math.sqrt(DIM))
                    for key in range(visible.shape[1])
                    if visible[row, key]
                }
                for index in range(N_VISUAL):
                    total[index] += exponents.get(VISUAL_START + index, 0.0) / sum(exponents.values())
        scores.append([value / HEADS / len(rows) for value in total])
    return scores


def test_attention_scores_are_the_formula():
    visible = torch.ones(2, 3, 16, dtype=torch.bool).tril(13)
    visible[1, 1:] = False  # a prompt with one asking row, padded to three
    inputs = make_inputs(visible)
    expected = torch.tensor(plain_scores(inputs), dtype=torch.float32)
    assert torch.allclose(AttentionScorer()(inputs), expected, atol=1e-7)


def test_attention_scores_are_float32_and_spend_at_most_one():
    scores = AttentionScorer()(make_inputs(torch.ones(3, 1, 16, dtype=torch.bool)))
    assert scores.dtype == torch.float32
    assert (scores > 0).all()
    assert (scores.sum(-1) < 1).all()  # the text keeps its share: scores are not renormalised over the image


def test_class_attention_is_summed_over_heads():
    inputs = make_inputs(torch.ones(2, 1, 16, dtype=torch.bool))
    for row in range(2):
        scores = [sum(heads) for heads in inputs.class_attention[row].tolist()]
        assert ClassAttentionScorer()(inputs)[row].tolist() == pytest.approx(scores)


def test_random_scores_depend_on_seed_and_index_alone():
    inputs = make_inputs(torch.ones(4, 1, 16, dtype=torch.bool))
    together = RandomScorer()(inputs)
    for seed in range(4):
        alone = RandomScorer()(inputs._replace(seeds=torch.tensor([seed])))
        assert torch.equal(alone[0], together[seed])
    assert len(set(together.flatten().tolist())) == together.numel()


def test_random_choice_is_even():
    inputs = make_inputs(torch.ones(1, 1, 16, dtype=torch.bool))._replace(seeds=torch.arange(20_000))
    share = torch.bincount(topk(RandomScorer()(inputs), 3).flatten(), minlength=N_VISUAL) / 20_000
    assert (share - 3 / N_VISUAL).abs().max() < 5 * math.sqrt(0.3 * 0.7 / 20_000)


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=4),
    st.integers(1, 7),
)
def test_topk_keeps_the_highest_and_of_equals_the_first(scores, n_keep):
    for row, kept in zip(scores, topk(torch.tensor(scores).float(), n_keep).tolist(), strict=True):
        assert kept == sorted(sorted(range(7), key=lambda index: -row[index])[:n_keep])


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 5000))
def test_budget_by_share(share, n_visual):
    kept = Budget(share).count(n_visual)
    assert 1 <= kept <= n_visual
    assert kept == max(1, math.floor(share * n_visual + 1e-9))


@given(st.integers(1, 100), st.integers(1, 50))
def test_a_share_that_is_a_whole_number_of_tokens_keeps_that_number(percent, hundreds):
    assert Budget(percent / 100).count(100 * hundreds) == percent * hundreds


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_budget_by_number(tokens, n_visual):
    assert Budget(tokens=tokens).count(n_visual) == min(tokens, n_visual)


@pytest.mark.parametrize("budget", [{"share": 0.0}, {"share": 1.1}, {"share": math.nan}, {"tokens": 0}])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(DeeplayerError, match=str(next(iter(budget.values())))):
        Budget(**budget)


@pytest.mark.parametrize(("n_layers", "layer"), [(32, 12), (24, 9), (36, 14), (16, 6), (8, 3)])
def test_default_layer_is_12_of_32(n_layers, layer):
    assert build("deep-layer", Options(Budget(0.1)), n_layers).layer == layer


@pytest.mark.parametrize(
    ("method", "layer"), [("deep-layer", 5), ("random", 5), ("fastv", 2), ("divprune", 0), ("vscan", 4), ("feather", 2)]
)
def test_a_models_grounding_layer_takes_the_place_of_12_of_32_alone(method, layer):
    assert build(method, Options(Budget(0.1), grounding_layer=5), 8).layer == layer
    assert build("deep-layer", Options(Budget(0.1), layer=6, grounding_layer=5), 8).layer == 6


@pytest.mark.parametrize(("method", "layer"), [("deep-layer", 0), ("deep-layer", 8), ("random", -1), ("random", 8)])
def test_layers_that_do_not_exist_are_refused(method, layer):
    with pytest.raises(DeeplayerError, match=f"layer {layer} is out of range"):
        build(method, Options(Budget(0.1), layer=layer), 8)


def test_drops_after_the_same_layer_are_refused():
    with pytest.raises(DeeplayerError, match="sparsevlm drops after layers 1, 1, 2 of 4, but each drop must"):
        build("sparsevlm", Options(Budget(0.1)), 4)
    assert [stage.drop_after_layer for stage in build("pyramiddrop", Options(Budget(0.1)), 4).stages] == [1, 2, 3]


def test_random_may_drop_before_the_language_model():
    assert build("random", Options(Budget(0.1), layer=0), 8).layer == 0


def test_none_is_the_first_method_and_the_others_follow_by_name():
    first, *others = list(known_methods())[: len(NAMES)]
    assert first == "none" and others == sorted(others) and {first, *others} == set(NAMES)


def test_unknown_methods_are_refused_with_the_known_ones():
    with pytest.raises(DeeplayerError, match="'fastvv'.*" + ".*".join(known_methods())):
        build("fastvv", Options(Budget(0.1)), 8)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("deep-layer-mis@spatial=near", "method deep-layer-mis: spatial must be places or index, not 'near'"),
        ("deep-layer-mis@spatial", "method deep-layer-mis: spatial must be places or index, not ''"),
        ("deep-layer-mis@shape=round", "method deep-layer-mis has no parameter 'shape'; its parameters: spatial"),
        ("fastv@shape=round", "method fastv has no parameter 'shape'; it takes none"),
        ("fastv@layer=3", "method fastv has no parameter 'layer'; give the option --layer 3"),
        ("deep-layer-mis@keep", "method deep-layer-mis has no parameter 'keep'; give the option --keep"),
        ("deep-layer-mis@spatial=index@spatial=places", "method deep-layer-mis: spatial is given twice: give it once"),
        ("@spatial=index", "unknown pruning method ''"),
    ],
)
def test_wrong_parameters_are_refused(text, reason):
    with pytest.raises(DeeplayerError, match=f"^{reason}"):
        build(text, Options(Budget(0.1)), 8)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_number_is_read_and_held_in_its_range(value, high):
    parameter = Parameter(0.5, "", low=0, high=high)
    if value <= high:
        assert parameter.read(repr(value)) == value
    else:
        with pytest.raises(DeeplayerError, match=f"must be a number from 0 to {high:g}, not"):
            parameter.read(repr(value))
    for wrong in ("nan", "", "1e", "one"):
        with pytest.raises(DeeplayerError, match="must be a"):
            parameter.read(wrong)


def test_position_ids_are_kept_unless_asked_otherwise():
    def renumbers(name, positions):
        return build(name, Options(Budget(0.1), positions=positions), 8).renumbers

    for name, entry in known_methods().items():
        if entry.is_calibrated:
            continue
        found = [renumbers(name, positions) for positions in ("keep", "renumber", "published")]
        assert found == [False, True, entry.positions == "renumber"]
    authors = {name for name, entry in known_methods().items() if entry.positions == "renumber"}
    assert authors >= {"pyramiddrop", "sparsevlm-nomerge", "divprune", "visionzip-nomerge"}
    assert {name for name, entry in known_methods().items() if entry.positions == "keep"} >= {
        "fastv",
        "vscan",
        "feather",
    }
