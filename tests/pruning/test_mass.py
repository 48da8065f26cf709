"""Budgets that are a share of the attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning import Budget, Options, build
from deeplayer_cli.pruning.topk import FewestWithMass, topk

N_VISUAL = 24
ATTENTION = st.lists(
    st.lists(st.floats(0, 1, width=32), min_size=N_VISUAL, max_size=N_VISUAL).filter(any), min_size=1, max_size=3
)


def kept(scores, mass):
    selection = FewestWithMass(mass)(scores, None, N_VISUAL)
    return [row[:count].tolist() for row, count in zip(selection.indices, selection.counts, strict=True)]


@given(ATTENTION, st.floats(0.01, 0.999))
def test_the_fewest_tokens_that_hold_the_mass(attention, mass):
    scores = torch.tensor(attention)
    for row, tokens in zip(scores.double(), kept(scores, mass), strict=True):
        assert tokens == topk(row.float()[None], len(tokens))[0].tolist()
        assert row[tokens].sum() >= mass * row.sum() * (1 - 1e-12)
        fewer = topk(row.float()[None], len(tokens) - 1)[0]
        assert row[fewer].sum() < mass * row.sum() or not len(fewer)


@given(ATTENTION, st.floats(0.01, 0.999), st.floats(0.01, 0.999))
def test_more_mass_keeps_more_and_drops_nothing(attention, one, other):
    few, many = (kept(torch.tensor(attention), mass) for mass in sorted((one, other)))
    assert all(set(less) <= set(more) for less, more in zip(few, many, strict=True))


def test_all_of_the_mass_is_no_pruning():
    method = build("deep-layer", Options(Budget(mass=1.0)), 8)
    assert not method.prunes(N_VISUAL) and not method.is_adaptive
    assert build("deep-layer", Options(Budget(mass=0.999)), 8).prunes(N_VISUAL)


@given(ATTENTION, st.floats(0.01, 0.999), st.floats(0, 1), st.floats(0.01, 1))
def test_bounds_cut_what_the_mass_asks_for(attention, mass, one, other):
    least, most = sorted((one, other))
    (stage,) = build("deep-layer", Options(Budget(mass=mass, least=least, most=most)), 8).stages
    n_keep, scores = stage.count(N_VISUAL), torch.tensor(attention)
    assert n_keep == Budget(most).count(N_VISUAL)
    selection = stage.selector(scores, None, n_keep)
    fewest = Budget(least).count(N_VISUAL) if least else 1
    for row, found, count, free in zip(
        scores, selection.indices, selection.counts.tolist(), kept(scores, mass), strict=True
    ):
        assert count == min(max(len(free), fewest), n_keep)
        assert found[:count].tolist() == topk(row[None], count)[0].tolist()


def test_all_of_the_mass_within_bounds_is_the_most():
    method = build("deep-layer", Options(Budget(mass=1.0, least=0.1, most=0.5)), 8)
    assert method.count(N_VISUAL) == N_VISUAL // 2 and not method.is_adaptive


@pytest.mark.parametrize(("least", "most"), [(0.5, 0.1), (-0.1, 0.5), (0.0, 0.0), (0.1, 1.5), (float("nan"), 1.0)])
def test_impossible_bounds_are_refused(least, most):
    with pytest.raises(DeeplayerError, match="auto:P:LEAST:MOST needs shares of the visual tokens"):
        Budget(mass=0.9, least=least, most=most)
    with pytest.raises(DeeplayerError, match="need a share of the attention"):
        Budget(0.5, least=0.1)


@pytest.mark.parametrize("name", ["random", "uniform", "deep-layer-mis", "pyramiddrop", "divprune", "cascade"])
def test_methods_without_a_mass_say_so(name):
    with pytest.raises(DeeplayerError, match=f"method {name} has no --keep auto:P"):
        build(name, Options(Budget(mass=0.9)), 8)


@pytest.mark.parametrize("mass", [0.0, -1.0, 1.01, float("nan")])
def test_an_impossible_mass_is_refused(mass):
    with pytest.raises(DeeplayerError, match="--keep auto:P needs a share P above 0 and at most 1"):
        Budget(mass=mass)
