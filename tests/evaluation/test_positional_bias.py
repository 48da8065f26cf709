"""Correlations of attention with the place: Spearman's, and the bands that they stay in by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import false_discovery_control, spearmanr

from deeplayer_cli.evaluation.positional_bias import SIGNALS, VIEWS, BiasTest, ImageRanks, holm, rank_maps

SIDE = 8
ORDER = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
Y, X = np.mgrid[:SIDE, :SIDE]


def ranks_of(attention, cluster):
    """The ranks of one prompt's attention (L, side, side) about an image of one tile."""
    flat = attention.reshape(len(attention), -1)
    maps = rank_maps(flat, np.zeros(flat.shape[1], dtype=bool)).reshape(attention.shape)
    return ImageRanks(maps, maps, ORDER, cluster)


def results_of(images, draws=400, seed=0):
    test = BiasTest(draws, seed)
    for cluster, attention in enumerate(images):
        test.add(ranks_of(attention, cluster))
    return test.results()


@given(st.lists(st.integers(0, 5), min_size=4, max_size=30), st.integers(0, 2**16))
def test_products_of_ranks_are_spearmans_correlation(values, seed):
    values = np.array(values, dtype=float)  # with ties
    other = np.random.default_rng(seed).random(len(values))
    left_out = np.zeros(len(values), dtype=bool)
    left_out[: len(values) // 4] = True
    product = float((rank_maps(values, left_out) * rank_maps(other, left_out)).sum())
    if len(set(values[~left_out])) == 1:
        assert product == 0
    else:
        assert product == pytest.approx(spearmanr(values[~left_out], other[~left_out]).statistic)


def test_observed_correlations_are_those_of_each_image():
    images = np.random.default_rng(0).random((3, 2, SIDE, SIDE))
    centre = np.hypot(Y - (SIDE - 1) / 2, X - (SIDE - 1) / 2)
    for layer, found in enumerate(results_of(images)):
        assert [(one.view, one.signal) for one in found.correlations] == [(v, s) for v in VIEWS for s in SIGNALS]
        for one, signal in zip(found.correlations[:4], (Y, X, ORDER, centre), strict=True):
            per_image = [spearmanr(image[layer].ravel(), signal.ravel()).statistic for image in images]
            assert one.rho == pytest.approx(np.mean(per_image)), one.signal


@pytest.mark.parametrize("smooth", [0, 1.5], ids=["noise", "smooth noise"])
def test_the_band_holds_95_percent_of_noise(smooth):
    """Noise of neighbouring tokens that resemble each other, too: there, permuted tokens would give 0.4 and less."""
    random = np.random.default_rng(5)
    inside, agrees, p = [], [], []
    for seed in range(40):
        noise = random.standard_normal((8, 12, SIDE, SIDE))
        for found in results_of(gaussian_filter(noise, (0, 0, smooth, smooth)), seed=seed):
            inside.append([one.low <= one.rho <= one.high for one in found.correlations if one.view == "tile"])
            agrees.append(found.agreement <= found.agreement_high)
            p.append(found.p)
    assert np.mean(inside, axis=0) == pytest.approx([0.95] * 4, abs=0.03)  # of 480 each; standard error 0.01
    assert np.mean(agrees) == pytest.approx(0.95, abs=0.03)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) < level) == pytest.approx(level, abs=3.5 * (level * (1 - level) / 480) ** 0.5)


def test_copies_of_an_image_are_one_image():
    """Twelve copies of one random map are no evidence; twelve random maps of the same kind would be."""
    (attention,) = np.random.default_rng(2).random((1, 1, SIDE, SIDE)) + 0.05 * Y
    test = BiasTest(400)
    for _ in range(12):
        test.add(ranks_of(attention, cluster=7))
    (copies,) = test.results()
    one = BiasTest(400)
    one.add(ranks_of(attention, cluster=7))
    (alone,) = one.results()
    assert [one.low for one in copies.correlations] == pytest.approx([one.low for one in alone.correlations])
    assert copies.correlations[0].low <= copies.correlations[0].rho <= copies.correlations[0].high
    assert results_of([np.random.default_rng(n).random((1, SIDE, SIDE)) + 0.05 * Y for n in range(12)])[0].p < 0.01


def test_a_pattern_that_no_signal_describes_shows_as_agreement():
    board = ((X + Y) % 2).astype(float)
    images = [np.random.default_rng(n).random((1, SIDE, SIDE)) + board for n in range(12)]
    (found,) = results_of(images)
    assert found.p < 0.01 and found.agreement > 0.5 > found.agreement_high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_are_holms(p):
    adjusted = holm(p)
    order = sorted(range(len(p)), key=p.__getitem__)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, p[place] * (len(p) - rank))
        assert adjusted[place] == pytest.approx(min(1.0, highest))
    assert all(one >= fdr - 1e-12 for one, fdr in zip(adjusted, false_discovery_control(p), strict=True))
