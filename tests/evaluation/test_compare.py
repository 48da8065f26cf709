"""Paired comparisons, against resampling and against what must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_the_interval_is_that_of_resampled_images(seed: int) -> None:
    first, second, images = outcomes(seed)
    found = paired_difference(first, second, images)
    d = np.subtract(first, second, dtype=float).reshape(150, 4)
    rng = np.random.default_rng(1)
    means = d[rng.integers(0, 150, (4000, 150))].mean((1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    assert found.value == pytest.approx(d.mean())
    assert found.low == pytest.approx(low, abs=0.006) and found.high == pytest.approx(high, abs=0.006)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30))
def test_a_difference_has_a_sign(rows: list[tuple[bool, bool, int]]) -> None:
    first, second, images = (list(column) for column in zip(*rows, strict=True))
    there, back = paired_difference(first, second, images), paired_difference(second, first, images)
    assert there.value == pytest.approx(-back.value) and there.p == pytest.approx(back.p)
    assert there.low <= there.value <= there.high and 0 <= there.p <= 1


def test_nothing_differs_from_itself() -> None:
    first, _, images = outcomes(0)
    found = paired_difference(first, first, images)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


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
