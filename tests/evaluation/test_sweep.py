"""The choice of a layer: on planted outcomes, with rows that choose and rows that report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import MethodRun, paired_difference
from deeplayer_cli.evaluation.score import clustered_interval
from deeplayer_cli.evaluation.sweep import RowSplit, choose_layer, split_rows

IMAGES, ROWS = 60, 4


def run_of(chance, seed, label="deep-layer"):
    """A run that is right with this chance; rows of an image are right or wrong together half of the time."""
    random = np.random.default_rng(seed)
    images = np.repeat(np.arange(IMAGES), ROWS)
    together = np.repeat(random.random(IMAGES) < chance, ROWS)
    right = np.where(random.random(IMAGES * ROWS) < 0.5, together, random.random(IMAGES * ROWS) < chance)
    ids = tuple(range(IMAGES * ROWS))
    return MethodRun(label, 0.1, 2, ids, tuple(images.tolist()), tuple(right.tolist()), len(ids), 0, 0, 0.1)


UNPRUNED = run_of(0.95, 0, "none")
IMAGE_OF = dict(zip(UNPRUNED.ids, UNPRUNED.images, strict=True))
PLANTED = {2: run_of(0.3, 1), 4: run_of(0.5, 2), 6: run_of(0.9, 3), 8: run_of(0.6, 4)}


def test_the_planted_layer_is_chosen():
    split = split_rows(IMAGE_OF, None, None)
    choice = choose_layer(PLANTED, UNPRUNED, split)
    assert choice.layer.layer == 6 and choice.layer.wins > 0.99
    assert [one.layer for one in choice.layers] == [2, 4, 6, 8]
    assert sum(one.wins for one in choice.layers) == pytest.approx(1)


def test_the_report_is_of_rows_that_did_not_choose():
    """A layer that is right on the selection rows only: its report says so."""
    split = split_rows(IMAGE_OF, None, None)
    lucky = replace(PLANTED[2], right=tuple(row in split.select for row in UNPRUNED.ids))
    choice = choose_layer({**PLANTED, 2: lucky}, UNPRUNED, split)
    assert choice.layer.layer == 2 and choice.layer.accuracy.rate.value == 1.0
    assert choice.held_out.rate.value == 0.0 and choice.held_out.n == len(split.report)
    whole = [UNPRUNED.right[row] for row in sorted(split.report, key=repr)]
    images = [UNPRUNED.images[row] for row in sorted(split.report, key=repr)]
    assert choice.held_out_unpruned.rate.value == pytest.approx(np.mean(whole))
    assert choice.held_out_unpruned.rate.low == pytest.approx(clustered_interval(whole, images)[0])
    assert choice.difference == paired_difference([False] * len(whole), whole, images)


def test_layers_of_other_gold_boxes_are_not_paired():
    asked = [("x", (0.0, 0.0, 1.0, 1.0), "image")] * len(UNPRUNED.ids)
    others = [*asked[:-1], ("x", (0.0, 0.0, 2.0, 2.0), "image")]
    layers = {6: replace(PLANTED[6], asked=tuple(others))}
    with pytest.raises(DeeplayerError, match=f"none and deep-layer did not .* gold of id {UNPRUNED.ids[-1]} is"):
        choose_layer(layers, replace(UNPRUNED, asked=tuple(asked)), split_rows(IMAGE_OF, None, None))


def test_equal_layers_share_their_wins_by_chance_and_the_first_of_equals_is_chosen():
    split = split_rows(IMAGE_OF, None, None)
    same = choose_layer({3: PLANTED[6], 5: PLANTED[6]}, UNPRUNED, split)
    assert same.layer.layer == 3 and same.layer.wins == 1.0
    close = choose_layer({layer: run_of(0.7, layer) for layer in range(1, 6)}, UNPRUNED, split)
    assert close.layer.wins < 0.95


def test_wins_are_those_of_a_plain_bootstrap():
    split = split_rows(IMAGE_OF, None, None)
    runs = {layer: run_of(0.7, 20 + layer) for layer in (1, 2)}
    found = choose_layer(runs, UNPRUNED, split)
    random = np.random.default_rng(3)
    chosen = sorted({UNPRUNED.images[row] for row in split.select})
    wins = []
    for _ in range(1500):
        drawn = random.choice(chosen, size=len(chosen))
        right = [
            np.mean([run.right[ROWS * image + row] for image in drawn for row in range(ROWS)]) for run in runs.values()
        ]
        wins.append(right[0] >= right[1])
    assert found.layers[0].wins == pytest.approx(np.mean(wins), abs=0.05)


@given(st.integers(0, 50))
def test_half_of_the_images_choose(seed):
    split = split_rows(IMAGE_OF, None, None, seed=seed)
    select, report = ({UNPRUNED.images[row] for row in rows} for rows in (split.select, split.report))
    assert not select & report and len(select) == len(report) == IMAGES // 2
    assert split.select | split.report == set(UNPRUNED.ids) and split.n_left_out == 0
    assert split == split_rows(IMAGE_OF, None, None, seed=seed)


def test_one_named_set_leaves_the_rest_to_the_other():
    """Rows 0 and 5 choose; the other rows about their images, 0 and 1, may not report."""
    split = split_rows(IMAGE_OF, [0, 5], None)
    assert split == RowSplit(frozenset({0, 5}), frozenset(range(8, IMAGES * ROWS)), 6)
    assert split_rows(IMAGE_OF, None, [0, 5]) == RowSplit(split.report, split.select, 6)
    rest = IMAGES * ROWS - 20
    assert split_rows(IMAGE_OF, range(8), range(8, 20)) == RowSplit(frozenset(range(8)), frozenset(range(8, 20)), rest)


@pytest.mark.parametrize("report", [range(8), range(4, 12), [3]], ids=["the same", "some", "another row of an image"])
def test_selection_rows_cannot_report(report):
    with pytest.raises(DeeplayerError, match=r"share \d images?, with \d+ report rows?: .*cannot report"):
        split_rows(IMAGE_OF, [0, 1, 2, *range(4, 8)], report)


def test_a_set_without_rows_is_refused():
    for select, report in ((range(IMAGES * ROWS), None), ([], None), (None, [10**6])):
        with pytest.raises(DeeplayerError, match=r"there is no (selection|report) row"):
            split_rows(IMAGE_OF, select, report)
    with pytest.raises(DeeplayerError, match="there is no"):
        split_rows({}, None, None)


def test_a_run_that_lacks_rows_is_refused():
    lacking = replace(PLANTED[6], ids=UNPRUNED.ids[:10], images=UNPRUNED.images[:10], right=UNPRUNED.right[:10])
    with pytest.raises(DeeplayerError, match="has no answer to"):
        choose_layer({6: lacking}, UNPRUNED, split_rows(IMAGE_OF, None, None))
