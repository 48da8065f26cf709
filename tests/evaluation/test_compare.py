"""Paired comparisons, against resampling and against what must hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, chi2

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import compare, gather, label_for, line_called, paired_difference
from deeplayer_cli.schema import Prediction

if TYPE_CHECKING:
    from deeplayer_cli.evaluation.compare import MethodRun


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
    assert (found.value, found.p, found.n_differ) == (0.0, 1.0, 0)
    assert found.low == -found.high == pytest.approx(-3 / 150, abs=0.001)  # the rule of three for 150 images
    if_it_were_more = 1.01 * found.high
    assert (1 - if_it_were_more) ** 150 < 0.05 < (1 - 0.99 * found.high) ** 150


def row(number: int, iou: float | None, **changes: object) -> Prediction:
    plain = Prediction(number, "a", "b", "ok", iou=iou, visual_tokens=100, kept_tokens=10, layer=2)
    return replace(plain, **changes)  # type: ignore[arg-type]


def run_of(*rows: Prediction, name: str = "m") -> MethodRun:
    return gather(rows, label=name, keep=0.1)


def test_rows_are_gathered() -> None:
    run = run_of(
        *(row(1, 0.6), row(2, 0.4), row(3, None)), row(4, 0.0, status="error", visual_tokens=None, kept_tokens=None)
    )
    assert run.right == (True, False, False) and run.ids == (1, 2, 4) and run.n_error == 1
    assert run.kept == pytest.approx(0.1) and (run.keep, run.layer) == (0.1, 2)
    assert run_of(row(1, 0.6, layer=None)).keep == 1.0
    assert run_of(row(1, 0.6, kept_tokens=100), name="freeze").keep == 1.0  # it has a layer, and no use for a keep


def test_rows_are_paired_by_id_whatever_their_order() -> None:
    rows = [row(n, iou, image=str(n)) for n, iou in enumerate([0.9, 0.1, 0.9, 0.1])]
    line = compare([run_of(*reversed(rows))], run_of(*rows))[0]
    assert line.difference is not None and line.difference.value == 0.0 and line.difference.p == 1.0


def test_runs_over_other_rows_are_not_compared() -> None:
    one, other, nothing = (run_of(row(1, 0.6)), run_of(row(2, 0.6)), run_of(row(1, None)))
    assert compare([one], one)[0].retained == 1.0
    with pytest.raises(DeeplayerError, match="of 1 and 1 with gold, 0 are in both"):
        compare([one, other], one)
    with pytest.raises(DeeplayerError, match="no row has a gold box"):
        compare([nothing], nothing)


@pytest.mark.parametrize(
    "changes",
    [{"gold": (0.0, 0.0, 2.0, 2.0)}, {"expression": "c"}, {"image_id": "other"}],
    ids=lambda one: next(iter(one)),
)
def test_rows_that_only_have_the_same_id_are_not_paired(changes: dict[str, object]) -> None:
    alike = {"gold": (0.0, 0.0, 1.0, 1.0), "image_id": "same"}
    one, other = run_of(row(1, 0.6, **alike)), run_of(row(1, 0.6, **{**alike, **changes}), name="n")
    with pytest.raises(DeeplayerError, match=r"m and n did not answer the same rows: .* of id 1 is"):
        compare([one, other], one)
    unread = run_of(row(1, 0.0, **alike | {"image_id": None, "status": "error"}), name="n")
    assert compare([unread], one)[0].difference is not None  # nobody knows the image that was not read


def test_a_budget_that_some_rows_did_not_use_is_still_the_budget() -> None:
    fell_back = row(1, 0.6, kept_tokens=100, fallback={"score": 0.1, "kept_tokens": 10})
    assert run_of(fell_back).keep == 0.1
    died = row(2, 0.0, status="error", layer=None, visual_tokens=None, kept_tokens=None)
    run = run_of(row(1, 0.6), died)
    assert (run.keep, run.layer) == (0.1, 2)


def test_time_is_compared_only_where_both_were_timed() -> None:
    run = run_of(row(1, 0.6))
    timed = replace(run, seconds=2.0)
    assert compare([run, replace(run, seconds=3.0)], timed)[0].speed is None
    assert compare([run, replace(run, seconds=4.0)], timed)[1].speed == 0.5


LABELS = ["none", "none@max-tiles=1", "fastv@layer=4", "random", "random"]


@pytest.mark.parametrize(("name", "place"), [("none", 0), ("none@max-tiles=1", 1), ("fastv", 2), ("fastv@layer=4", 2)])
def test_a_line_is_found_by_its_label_or_method(name: str, place: int) -> None:
    assert line_called(name, LABELS) == place


@pytest.mark.parametrize(("name", "reason"), [("divprune", "not one of the lines"), ("random", "names several lines")])
def test_a_line_that_is_not_one_line(name: str, reason: str) -> None:
    with pytest.raises(DeeplayerError, match=reason):
        line_called(name, LABELS)


def test_a_label_says_what_is_unusual() -> None:
    assert label_for("fastv") == "fastv"
    assert label_for("fastv", keep_mass=0.9) == "fastv@keep=auto:0.9"
    assert label_for("fastv", keep_mass=0.9, keep_least=0.0, keep_most=0.3) == "fastv@keep=auto:0.9:0.0:0.3"
    assert label_for("fastv", layer=4, max_tiles=1, query="text") == "fastv@layer=4@max-tiles=1@query=text"
