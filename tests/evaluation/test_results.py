"""Folders of prediction files, read without a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from deeplayer_cli.cost.model import Cost
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation import read_runs
from deeplayer_cli.evaluation.results import result_path, with_outcome
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks import PredictionFile, ResumeMode, RunRecord

SETTINGS = {"method": "fastv", "keep": 0.1, "layer": None, "max_tiles": None, "query": "last", "weights": "w"}
COST = Cost(rows=2, visual_tokens=200, seen_tokens=50.0, total_gflops=6.0, total_kv_bytes=8.0)


def write(folder, ids, *, answer="x", layer=2, gold=None, image_id=None, **changes):
    """One prediction file with its record."""
    record = RunRecord({**SETTINGS, **changes}, {"version": "1"})
    folder.mkdir(exist_ok=True)
    path = result_path(folder, record)
    with PredictionFile(path, record, ResumeMode.RESUME) as sink:
        for row_id in ids:
            row = Prediction(row_id, "a", "b", "ok", iou=0.6, answer=answer, method="fastv", layer=layer, gold=gold)
            sink.write(replace(row, image_id=image_id))
    with_outcome(record, Counter(ok=len(ids)), COST).save(path)
    return path


def test_two_folders_are_one_comparison(tmp_path):
    write(tmp_path / "a", [1, 2], method="none", layer=None)
    write(tmp_path / "a", [1, 2], keep=0.5)
    write(tmp_path / "b", [2, 1], keep=0.25, max_tiles=3)
    runs = read_runs([tmp_path / "a", tmp_path / "b"])
    assert [(run.label, run.keep) for run in runs] == [("none", 1.0), ("fastv", 0.5), ("fastv@max-tiles=3", 0.25)]
    assert all(run.cost == COST for run in runs)


def test_shards_of_one_run_are_joined(tmp_path, caplog):
    write(tmp_path / "a", [1, 2])
    write(tmp_path / "b", [2, 3], answer="y")
    (run,) = read_runs([tmp_path / "a", tmp_path / "b"])
    assert run.ids == (1, 2, 3)
    assert run.cost is not None and (run.cost.rows, run.cost.gflops, run.cost.mean_keep) == (4, 3.0, 0.25)
    assert "1 row with different answers" in caplog.text


@pytest.mark.parametrize(
    ("name", "ours", "theirs"), [("gold", (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 2.0, 2.0)), ("image_id", "aa", "bb")]
)
def test_one_row_has_one_gold_box_and_one_image(tmp_path, name, ours, theirs):
    for folder, value in (("a", ours), ("b", theirs), ("c", ours), ("failed", None)):
        write(tmp_path / folder, [1], **{name: value})
    with pytest.raises(DeeplayerError, match="different rows of id 1"):
        read_runs([tmp_path / "a", tmp_path / "b"])
    assert len(read_runs([tmp_path / "a", tmp_path / "c"])) == 1
    if name == "image_id":  # of a row that failed before its image was read
        assert len(read_runs([tmp_path / "a", tmp_path / "failed"])) == 1


def test_lines_of_other_budgets_or_priors_can_be_told_apart(tmp_path, caplog):
    for n in (8, 32):
        write(tmp_path / "tokens", [1], keep_tokens=n)
    assert [run.label for run in read_runs([tmp_path / "tokens"])] == ["fastv@keep-tokens=32", "fastv@keep-tokens=8"]
    assert not caplog.records
    for prior in ("p", "q"):
        write(tmp_path / "priors", [1], prior=prior)
    read_runs([tmp_path / "priors"])
    assert "differ in their prior only" in caplog.text


def test_what_ground_wrote_has_no_cost(tmp_path):
    path = write(tmp_path / "a", [1])
    RunRecord({**SETTINGS, "keep_tokens": 7}, {}).save(path)
    (run,) = read_runs([tmp_path / "a"])
    assert run.cost is None and run.keep is None


def test_what_cannot_be_compared(tmp_path):
    with pytest.raises(DeeplayerError, match="has no prediction files"):
        read_runs([tmp_path])
    with pytest.raises(DeeplayerError, match="gone is no folder: name a folder of compare"):
        read_runs([tmp_path / "gone"])
    write(tmp_path, [1])
    write(tmp_path, [1], weights="v")
    with pytest.raises(DeeplayerError, match=r"cannot be compared: weights is .* keep others in a folder of their own"):
        read_runs([tmp_path])
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(DeeplayerError, match="with its settings is missing"):
        read_runs([tmp_path])


def test_a_method_of_any_name_has_a_file(tmp_path):
    path = result_path(tmp_path, RunRecord({"method": "../mine 2"}, {}))
    assert path.parent == tmp_path and path.name.startswith(".._mine_2-")


def test_files_are_named_by_method_keep_and_layer(tmp_path):
    record = RunRecord({"method": "fastv", "keep": 0.25, "keep_tokens": None, "layer": 3}, {})
    names = {
        "fastv-keep0.25-layer3-": {},
        "fastv-keep0.3333-": {"keep": 1 / 3, "layer": None},
        "fastv-keep64tokens-layer3-": {"keep_tokens": 64},
        "none-": {"method": "none", "layer": None},
    }
    for name, changes in names.items():
        found = result_path(tmp_path, replace(record, settings=record.settings | changes)).name
        assert found.startswith(name) and len(found) == len(name) + len("01234567.jsonl")
