"""Paired comparisons, against resampling and against what must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, chi2

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import compare, gather, paired_difference
from deeplayer_cli.schema import Prediction


def outcomes(seed: int, images: int = 150, rows: int = 4) -> tuple[list[bool], list[bool], list[int]]:
    """Two methods over rows that are alike within an image."""
    rng = np.random.default_rng(seed)
    ease = np.repeat(rng.random(images), rows)
    first, second = (ease + shift + 0.5 * rng.standard_normal(images * rows) > 0.5 for shift in (0.1, 0.0))
    return first.tolist(), second.tolist(), np.repeat(np.arange(images), rows).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_scipys_bootstrap_over_images(seed: int) -> None:
    first, second, images = outcomes(seed)
    found = paired_difference(first, second, images)
    d = np.subtract(first, second, dtype=float).reshape(150, 4).mean(1)  # images of equal size: their means
    resampled = bootstrap((d,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    low, high = resampled.confidence_interval
    assert found.value == pytest.approx(d.mean())
    assert found.low == pytest.approx(low, abs=0.006) and found.high == pytest.approx(high, abs=0.006)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize(("better", "worse"), [(30, 12), (12, 30), (20, 20), (9, 3)])
def test_one_row_an_image_is_nearly_mcnemars_test(better: int, worse: int) -> None:
    first = [True] * better + [False] * worse + [True] * 200
    second = [False] * better + [True] * worse + [True] * 200
    found = paired_difference(first, second, range(len(first)))
    mcnemar = chi2.sf((better - worse) ** 2 / (better + worse), df=1)
    assert found.p == pytest.approx(mcnemar, abs=0.01)


@pytest.mark.parametrize(
    ("first", "second", "images"),
    [
        ([True], [False], [1]),
        ([True, True], [False, False], [1, 2]),
        ([True] * 9, [False] * 5 + [True] * 4, [1] * 9),  # one image
        ([True, False] * 2, [False, False] * 2, [1, 1, 2, 2]),  # two images that differ alike
        ([True] * 3, [True] * 3, [1, 2, 3]),
    ],
)
def test_a_handful_proves_nothing(first: list[bool], second: list[bool], images: list[int]) -> None:
    found = paired_difference(first, second, images)
    assert found.low < 0 < found.high and found.low <= found.value <= found.high
    assert found.p > 0.05


def test_always_better_on_many_images_is_a_difference() -> None:
    found = paired_difference([True] * 20, [False] * 20, range(20))
    assert found.value == found.high == 1.0 and found.low > 0.7 and found.p < 1e-6


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30))
def test_a_difference_has_a_sign(rows: list[tuple[bool, bool, int]]) -> None:
    first, second, images = (list(column) for column in zip(*rows, strict=True))
    there, back = paired_difference(first, second, images), paired_difference(second, first, images)
    assert there.value == pytest.approx(-back.value) and there.p == pytest.approx(back.p)
    assert there.low <= there.value <= there.high and 0 <= there.p <= 1


def test_nothing_differs_from_itself() -> None:
    first, _, images = outcomes(0)
    found = paired_difference(first, first, images)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.low == -found.high == pytest.approx(-0.013, abs=0.001)  # 150 images: about two of them at most


def row(number: int, iou: float | None, **changes: object) -> Prediction:
    plain = Prediction(number, "a", "b", "ok", iou=iou, visual_tokens=100, kept_tokens=10, layer=2)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_costs_are_gathered() -> None:
    rows = [row(1, 0.6), row(2, 0.4), row(3, None), row(4, 0.0, status="error", visual_tokens=None, kept_tokens=None)]
    run = gather(rows, method="m", keep=0.1, layer=2, n_layers=8)
    assert run.right == (True, False, False) and run.ids == (1, 2, 4) and run.n_error == 1
    assert run.kept == pytest.approx(0.1) and run.mean_keep == pytest.approx((2 + 6 * 0.1) / 8)


def test_runs_over_other_rows_are_not_compared() -> None:
    one, other, nothing = (
        replace(gather(rows, method="m", keep=1, layer=None, n_layers=8), seconds=1.0)
        for rows in ([row(1, 0.6)], [row(2, 0.6)], [row(1, None)])
    )
    assert compare([one], one)[0].retained == 1.0
    with pytest.raises(DeeplayerError, match="not answer the same rows"):
        compare([one, other], one)
    with pytest.raises(DeeplayerError, match="no row has a gold box"):
        compare([nothing], nothing)
