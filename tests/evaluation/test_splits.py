"""Comparisons by split, and published figures beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import gather, paired_difference
from deeplayer_cli.evaluation.published_tables import beside, published_tables, read_published
from deeplayer_cli.evaluation.score import clustered_interval, require_fields, score
from deeplayer_cli.evaluation.splits import by_split, fields_in, namer
from deeplayer_cli.report.split_table import csv_rows, headings_and_rows
from deeplayer_cli.schema import Prediction

SPLITS = {"val": 240, "testA": 90, "testB": 30}


def run_of(seed, label, chance=0.7, splits=SPLITS):
    """Rows of the splits, three to an image; images are shared between splits, as in RefCOCO and RefCOCO+."""
    random = np.random.default_rng(seed)
    rows = []
    for split, count in splits.items():
        for number in range(count):
            iou = float(random.random() < chance)
            meta = {"dataset": "refcoco", "split": split}
            rows.append(Prediction(len(rows), f"{number // 3}.jpg", "b", "ok", iou=iou, layer=2, meta=meta))
    return gather(rows, label=label, keep=0.1, split_of=namer(["dataset", "split"]))


NONE, PRUNED = run_of(0, "none", 0.9), run_of(1, "fastv")


def test_a_cell_is_the_accuracy_of_its_split():
    table = by_split([NONE, PRUNED], NONE, "dataset,split")
    assert table.splits == ("refcoco val", "refcoco testA", "refcoco testB")
    assert table.counts == tuple(SPLITS.values())
    for run, line in zip((NONE, PRUNED), table.lines, strict=True):
        start = 0
        for rate, count in zip(line.accuracies, table.counts, strict=True):
            right, images = run.right[start : start + count], run.images[start : start + count]
            assert rate.value == np.mean(right) and (rate.low, rate.high) == clustered_interval(right, images)
            start += count
        assert line.average.value == pytest.approx(np.mean([rate.value for rate in line.accuracies]))
    first, second = (line.average.value for line in table.lines)
    assert table.lines[0].difference is None and table.lines[1].difference.value == pytest.approx(second - first)


def test_intervals_of_the_average_are_those_of_a_bootstrap_over_images():
    random = np.random.default_rng(2)
    images = np.array([int(image[1].removesuffix(".jpg")) for image in NONE.images])
    n_images = int(images.max()) + 1
    groups = np.repeat(np.arange(3), list(SPLITS.values()))
    right = [np.array(run.right, dtype=float) for run in (NONE, PRUNED)]
    averages = []
    for _ in range(1500):
        times = np.bincount(random.integers(n_images, size=n_images), minlength=n_images)[images]
        counts = np.bincount(groups, weights=times)
        averages.append([(np.bincount(groups, weights=times * one) / counts).mean() for one in right])
    drawn = np.array(averages)
    line = by_split([NONE, PRUNED], NONE, "split").lines[1]
    low, high = np.quantile(drawn[:, 1], [0.025, 0.975])
    assert (line.average.low, line.average.high) == pytest.approx((low, high), abs=0.02)
    low, high = np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
    assert (line.difference.low, line.difference.high) == pytest.approx((low, high), abs=0.02)


def test_one_split_is_the_plain_comparison():
    one, other = (run_of(seed, name, splits={"val": 200}) for seed, name in ((3, "none"), (4, "fastv")))
    line = by_split([one, other], one, "split").lines[1]
    found, plain = line.difference, paired_difference(other.right, one.right, one.images)
    assert (found.value, found.low, found.high, found.p) == pytest.approx((plain.value, plain.low, plain.high, plain.p))
    assert (line.average.low, line.average.high) == pytest.approx(
        (line.accuracies[0].low, line.accuracies[0].high), abs=0.005
    )


def test_what_never_varies_is_not_certain():
    perfect = replace(NONE, right=(True,) * len(NONE.right))
    table = by_split([perfect, replace(perfect, label="same")], perfect, "split")
    assert table.lines[0].average.low < 1 and table.lines[1].difference.low < 0 < table.lines[1].difference.high
    worse = replace(perfect, label="worse", right=(False,) * len(NONE.right))
    found = by_split([perfect, worse], perfect, "split").lines[1].difference
    assert found.value == -1 and found.p < 1e-6 and np.isfinite(found.high)


def test_a_field_that_no_row_has_is_refused():
    rows = [Prediction(1, "a", "b", "ok", iou=1.0)]
    run = gather(rows, label="none", keep=1.0, split_of=namer(["split"]))
    with pytest.raises(DeeplayerError, match="no row has a value for 'split': name another field"):
        by_split([run], run, "split")
    row = replace(rows[0], meta={f"field{number}": 1 for number in range(14)})
    names = ", ".join(f"field{number}" for number in range(12))
    with pytest.raises(DeeplayerError, match=f"no row has a value for 'split'; the rows have {names}, ...$"):
        require_fields([row], ["status", "split"])
    with pytest.raises(DeeplayerError, match=r"for 'split'; the rows have no fields of their own$"):
        score([rows[0]], by="split")
    require_fields([rows[0], replace(row, meta={"split": "val"})], ["split"])
    require_fields([], ["split"])
    for text in ("", "a,", ","):
        with pytest.raises(DeeplayerError, match="--by must be a field"):
            fields_in(text)


def test_the_papers_table_is_whole_and_says_where_it_is_from():
    assert published_tables() == ["deep-layer-paper"]
    found = read_published("deep-layer-paper")
    assert "clawRxiv 2604.00591" in found.source and "github.com/" in found.source and found.note
    assert len(found.table.splits) == 8
    for line in found.table.lines:
        assert line.published and len(line.accuracies) == 8 and all(0 < rate.value < 1 for rate in line.accuracies)
        assert line.average.value == pytest.approx(np.mean([rate.value for rate in line.accuracies]), abs=1e-4)
    with pytest.raises(DeeplayerError, match="--published must be deep-layer-paper, not"):
        read_published("other")


def test_published_figures_stand_in_the_columns_of_their_splits():
    published = read_published("deep-layer-paper").table
    ours = by_split([NONE, PRUNED], NONE, "dataset,split")
    table = beside(ours, published)
    names = [line.method for line in table.lines]
    assert names[:2] == ["none", "fastv"] and names[2:] == [line.method for line in published.lines]
    assert [rate.value for rate in table.lines[2].accuracies] == [0.7434, 0.7713, 0.7121]
    assert table.lines[2].average.value == pytest.approx((0.7434 + 0.7713 + 0.7121) / 3)
    other = replace(ours, splits=("RefCOCO+_testA", "mine", "REFCOCOG test"))
    assert [rate and rate.value for rate in beside(other, published).lines[2].accuracies] == [0.7513, None, 0.7271]
    with pytest.raises(DeeplayerError, match="none of the splits a, b, c has published figures"):
        beside(replace(ours, splits=("a", "b", "c")), published)


def test_a_table_is_text_rows_and_json():
    table = beside(by_split([NONE, PRUNED], NONE, "split"), read_published("deep-layer-paper").table)
    headings, rows = headings_and_rows(table)
    assert headings[:5] == ["method", "keep", "layer", "refcoco val", "refcoco testA"]
    assert {len(row) for row in rows} == {len(headings)} and rows[2][0] == "none (published)"
    exact = csv_rows(table)
    assert len({tuple(row) for row in exact}) == 1 and exact[2]["refcoco val_low"] is None
    assert exact[1]["difference_p"] == table.lines[1].difference.p
    told = orjson.loads(orjson.dumps(table.to_dict()))
    assert told["n"]["refcoco val"] == 240 and told["lines"][2]["acc@0.5"]["refcoco val"] == 0.7434
