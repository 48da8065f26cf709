"""Attention to the target, on planted attention."""

from __future__ import annotations

import numpy as np
import pytest

from deeplayer_cli.evaluation.attention_maps import ImageAttention
from deeplayer_cli.evaluation.target_attention import measure_targets
from deeplayer_cli.pruning import Budget

N = 20


def image(attention, targets, digest="1"):
    attention = np.asarray(attention, dtype=float)
    nothing = np.zeros((len(attention), 0, N))
    return ImageAttention(digest, (1, 1), 1, range(len(targets)), {"last": attention}, {}, nothing, np.asarray(targets))


def test_measures_are_those_of_their_definitions():
    target = np.zeros((1, N), dtype=bool)
    target[0, [3, 7, 11]] = True
    on_it, off_it = np.ones(N), np.ones(N)
    on_it[[3, 7]], on_it[11] = 10, 0.5  # the highest two, and the lowest
    off_it[[3, 7, 11]] = 0.1
    found = measure_targets([image([[on_it], [off_it]], target)], Budget(0.2))  # 4 of 20
    first, second = found.by_kind["last"]
    assert (found.n_rows, found.n_images, found.area) == (1, 1, 3 / N)
    assert first.mass.value == pytest.approx(20.5 / 37.5) and second.mass.value == pytest.approx(0.3 / 17.3)
    assert (first.in_box.value, first.kept.value) == pytest.approx((2 / 4, 2 / 3))
    assert (second.in_box.value, second.kept.value) == (0, 0)
    assert first.rank.value == pytest.approx((0 + 1 + 19) / 3 / 19)
    assert second.rank.value == pytest.approx((17 + 18 + 19) / 3 / 19)


def test_noise_gives_chance_and_intervals_hold_it():
    random = np.random.default_rng(0)
    images = []
    for number in range(150):
        targets = random.random((4, N)) < 0.15
        targets[:, 0] = True
        images.append(image(random.random((2, 4, N)), targets, str(number)))
    found = measure_targets(images, Budget(0.2))
    assert (found.n_rows, found.n_images) == (600, 150)
    for layer in found.by_kind["last"]:
        chance = {"mass": found.area, "in_box": found.area, "kept": 0.2, "rank": 0.5}
        for name, rate in layer.rates.items():
            assert rate.low < chance[name] < rate.high and rate.high - rate.low < 0.1, name


def test_rows_without_a_target_do_not_count():
    targets = np.zeros((2, N), dtype=bool)
    targets[1, 5] = True
    attention = np.ones((1, 2, N))
    attention[0, 1, 5] = N  # the row without a target must not dilute it
    found = measure_targets([image(attention, targets), image(attention, targets & False, "2")], Budget(0.1))
    assert found.n_rows == found.n_images == 1
    assert found.by_kind["last"][0].mass.value == pytest.approx(N / (2 * N - 1))
    assert measure_targets([image(attention, targets & False)], Budget(0.1)).by_kind == {}
