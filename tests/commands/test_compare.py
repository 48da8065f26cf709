"""``deeplayer compare`` in this process, on the demo model."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.commands.method_list import settings_of, split_methods
from deeplayer_cli.engine import Engine
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.settings import Settings

SAMPLES = str(Path(__file__).parents[2] / "sample_data" / "requests.jsonl")
COMPARE = ["compare", SAMPLES, "--model", "demo"]


def run(*arguments, exit_code=0):
    """What a run printed."""
    finished = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "80"})
    if finished.exception is not None and finished.exit_code != exit_code:
        raise finished.exception
    return finished.stdout


def compared(*arguments, exit_code=0):
    """The lines of a comparison, as JSON."""
    return orjson.loads(run(*arguments, "--json", exit_code=exit_code))


def test_every_method_runs_on_the_same_rows():
    lines = compared(*COMPARE, "--limit", "8", "--methods", "random,fastv", "--keep", "0.1,0.5")
    expected = [("none", 1.0), ("random", 0.1), ("random", 0.5), ("fastv", 0.1), ("fastv", 0.5)]
    assert [(line["method"], line["keep"]) for line in lines] == expected
    assert all(line["n"] == 8 for line in lines)
    shares = [1, (6 + 2 * 14 / 144) / 8, 7 / 8, (2 + 6 * 14 / 144) / 8, 5 / 8]
    assert [line["mean_keep"] for line in lines] == pytest.approx(shares)
    costs = [line["gflops"] for line in lines]
    assert costs[0] > costs[2] > costs[1] > costs[4] > costs[3] > 0


def test_a_budget_by_attention_is_priced_by_the_tokens_that_each_row_kept(tmp_path):
    arguments = ["--limit", "4", "--methods", "deep-layer", "--keep", "auto:0.9", "--results", tmp_path]
    whole, adaptive = compared(*COMPARE, *arguments)
    (path,) = tmp_path.glob("deep-layer*.jsonl")
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    visual, kept = (sum(row[name] for row in rows) for name in ("visual_tokens", "kept_tokens"))
    assert adaptive["method"] == "deep-layer@keep=auto:0.9" and len({row["kept_tokens"] for row in rows}) > 1
    assert adaptive["mean_keep"] == pytest.approx((6 + 2 * kept / visual) / 8) and whole["mean_keep"] == 1
    assert adaptive["gflops"] < whole["gflops"]


def test_fewer_tiles_are_a_line_of_their_own(reference_dir, tmp_path):
    rows = [{"image": name, "expression": "the dog", "box": [1, 2, 30, 40]} for name in ("a_square_224.png", "d.png")]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    arguments = ["--model", reference_dir / "checkpoint", "--image-root", reference_dir / "images"]
    methods = ["--methods", "none@max-tiles=1"]
    whole, fewer = compared(
        "compare", tmp_path / "rows.jsonl", *arguments, *methods, exit_code=1
    )  # one image is absent
    assert (whole["method"], fewer["method"], fewer["n"], fewer["n_error"]) == ("none", "none@max-tiles=1", 2, 1)
    assert whole["kept"] == fewer["kept"] == fewer["mean_keep"] == 1.0
    assert fewer["gflops"] < whole["gflops"] and fewer["kv_bytes"] < whole["kv_bytes"]


def test_a_match_that_leaves_a_scout_out_says_so(caplog):
    arguments = ["--limit", "1", "--methods", "uniform@layer=0,scout-focus@updates=1", "--keep", "0.25"]
    said = "leaves out what the scout of scout-focus@updates=1 costs, which favours it: --match flops counts it"
    table = run(*COMPARE, *arguments, "--match", "mean-keep")
    assert said in caplog.text and "a scout counts in GFLOPs only" in " ".join(table.split())
    caplog.clear()
    run(*COMPARE, *arguments, "--match", "flops")
    assert said not in caplog.text


def test_others_cost_what_the_first_does():
    methods = "deep-layer,fastv,deep-layer@layer=7,none@max-tiles=1"
    lines = compared(*COMPARE, "--limit", "4", "--methods", methods, "--match", "flops", "--keep", "0.25")
    names = ["none", "deep-layer", "fastv", "none@max-tiles=1", "deep-layer@layer=7"]
    assert [line["method"] for line in lines] == names
    assert lines[2]["keep"] > lines[1]["keep"] == 0.25
    assert lines[2]["gflops"] == pytest.approx(lines[1]["gflops"], rel=0.01)
    assert lines[4]["unreachable"]["target"] == lines[1]["gflops"] < lines[4]["unreachable"]["reach"][0]
    arguments = ["--limit", "2", "--methods", "divprune,fastv", "--match", "mean-keep"]
    table = run(*COMPARE, *arguments)
    said = " ".join(table.split())
    assert "fastv cannot reach 9.7% mean keep" in said
    assert "name the method whose lowest cost is the greatest first in --methods" in said


def test_a_comparison_goes_on_where_it_was_stopped(tmp_path):
    kept = [*COMPARE, "--methods", "fastv", "--results", tmp_path / "kept"]
    compared(*kept, "--limit", "2", "--methods", "random")
    first = compared(*kept, "--limit", "3")
    assert all(line["seconds"] for line in first if line["method"] == "fastv") and first[0]["seconds"] is None
    again = compared(*kept, "--limit", "6", "--csv", tmp_path / "lines.csv")
    assert [line["seconds"] for line in again] == [None, None]
    whole = compared(*COMPARE, "--methods", "fastv", "--limit", "6")
    ignored = {"seconds": None, "speed": None}
    assert [line | ignored for line in again] == [line | ignored for line in whole]
    assert len((tmp_path / "lines.csv").read_text().splitlines()) == 3
    for path in (tmp_path / "kept").glob("*.jsonl"):
        ids = [orjson.loads(line)["id"] for line in path.read_bytes().splitlines()]
        assert len(ids) == len(set(ids)) == (2 if path.name.startswith("random") else 6)

    for path in (tmp_path / "kept").glob("random*"):
        path.unlink()
    read = compared("compare", "--from", tmp_path / "kept", "--reference", "fastv")
    assert [(line["method"], line["gflops"]) for line in read] == [(line["method"], line["gflops"]) for line in whole]
    assert read[0]["difference"]["value"] == -whole[1]["difference"]["value"] and read[1]["difference"] is None
    shown = [run(*kept, "--limit", "6"), run("compare", "--from", tmp_path / "kept")]
    assert not any("speed" in table for table in shown), "nothing was timed: neither a column nor a note"
    assert "speed" in run(*COMPARE, "--methods", "fastv", "--limit", "2")


def test_methods_share_what_they_have_in_common(tmp_path, monkeypatch):
    """The vision tower, and layers 1..3 where both drop after 3; and no answer is another for it."""
    calls = Counter()

    def counted(name):
        plain = getattr(Engine, name)

        def call(self, *arguments):
            calls[name] += 1
            return plain(self, *arguments)

        return call

    for name in ("encode", "prefix"):
        monkeypatch.setattr(Engine, name, counted(name))
    methods = ("deep-layer", "fastv", "random", "divprune", "visionzip-nomerge")
    compared(*COMPARE, "--limit", "8", "--methods", ",".join(methods), "--results", tmp_path / "together")
    # Once with the class token's attention, which one method wants, and once without; deep-layer and random share.
    assert calls == {"encode": 2, "prefix": 5}
    for method in methods:
        compared(*COMPARE, "--limit", "8", "--methods", method, "--results", tmp_path / "alone")
    names = {path.name for path in (tmp_path / "together").glob("*.jsonl")}
    assert len(names) == 6 and names == {path.name for path in (tmp_path / "alone").glob("*.jsonl")}
    for name in names:
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_signal_ends_it_in_good_order(tmp_path):
    command = [sys.executable, "-m", "deeplayer_cli", *COMPARE, "--methods", "fastv", "--batch-size", "2"]
    command += ["--results", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)
    while sum(path.stat().st_size > 0 for path in tmp_path.glob("*.jsonl")) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith(f"stopped: the same command continues with the rows in {tmp_path}")
    paths = list(tmp_path.glob("*.jsonl"))
    assert len(paths) == 2 and all(0 < len(path.read_bytes().splitlines()) < 96 for path in paths)
    again = compared(*COMPARE, "--methods", "fastv", "--results", tmp_path, "--limit", "12")
    assert [line["n"] for line in again] == [12, 12]


def test_a_method_that_cannot_run_is_refused_before_the_first_row(tmp_path):
    adaptive = ["--methods", "deep-layer,cascade", "--keep", "auto:0.9", "--results", tmp_path]
    with pytest.raises(DeeplayerError, match="method cascade has no --keep auto:P"):
        run(*COMPARE, *adaptive)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*COMPARE, "--keep", "x"], "'x'"),
        ([*COMPARE, "--methods", "fastv@tiles=2"], "positions=keep|renumber|published or fallback=T, not 'tiles=2'"),
        ([*COMPARE, "--methods", "fastv@layer=2@layer=3"], "fastv@layer=2@layer=3: layer is given twice: give it once"),
        ([*COMPARE, "--methods", "fastv@layer=9"], "layer 9 is out of range"),
        ([*COMPARE, "--reference", "fastv"], "--reference fastv is not one of the lines: none, deep-layer, random"),
        ([*COMPARE, "--keep", "0.1,0.2", "--reference", "random"], "names several lines (random, random)"),
        ([*COMPARE, "--methods", "none@max-tiles=1", "--match", "mean-keep"], "none@max-tiles=1 prunes nothing"),
        ([*COMPARE, "--match", "flops", "--keep", "0.1,auto:0.9"], "and that of --keep auto:P depends on each row"),
        ([*COMPARE, "--match", "mean-keep", "--methods", "fastv@fallback=0.5"], "that of fastv@fallback=0.5 depends"),
        ([*COMPARE, "--results", Path(SAMPLES).parent], "sample_data contains the requests"),
        ([*COMPARE, "--methods", "d2pruner"], "method d2pruner needs --prior FILE"),
        ([*COMPARE, "--num-workers", "2"], "--num-workers is for a Ray cluster: add --ray local, auto or HOST:PORT"),
        ([*COMPARE, "--ray", "local", "--cpus-per-worker", "1.5"], "--cpus-per-worker must be a whole number"),
        ([*COMPARE, "--csv", "no/lines.csv"], "there is no folder no"),
        ([*COMPARE, "--from", "."], "give one of the two"),
        (["compare"], "give one of the two"),
        (["compare", "--from", ".", "--limit", "2"], "--limit applies to a run, and --from runs nothing"),
        (["compare", "--from", "."], "has no prediction files"),
        (["compare", "--from", ".", "--csv", "kept.csv"], "kept.csv exists: --overwrite replaces it"),
        (["compare", "--from", ".", "--csv", "kept.csv", "--overwrite"], "has no prediction files"),
        (["compare", "kept.csv", "--csv", "kept.csv", "--overwrite"], "kept.csv is also an input"),
        (["calibrate", "no-images", "-o", "prior", "--model", "no-model"], "no-images does not exist"),
        (["calibrate", ".", "-o", "kept.csv", "--model", "no-model"], "kept.csv exists: --overwrite replaces it"),
        (["calibrate", ".", "-o", "no/prior", "--model", "no-model"], "there is no folder no"),
    ],
)
def test_what_is_refused(arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kept.csv").write_text("kept")
    with pytest.raises(DeeplayerError) as refusal:
        run(*arguments)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("by", "changes", "reason"),
    [
        ("kid", {}, "no row has a value for 'kid'; the rows have split, kind; did you mean 'kind'?"),
        ("split,colour", {}, "no row has a value for 'colour'; the rows have split, kind"),
        ("empty", {"empty": None}, "no row has a value for 'empty'; the rows have split, kind"),
        ("kind", {"box": None}, "no row has a gold box: there is nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_model_is_loaded(by, changes, reason, tmp_path):
    rows, results = tmp_path / "rows.jsonl", tmp_path / "results"
    row = {"image": "a.png", "expression": "x", "box": [1, 2, 3, 4], "split": "val", "kind": "place"}
    rows.write_bytes(orjson.dumps(row | changes))
    with pytest.raises(DeeplayerError) as refusal:
        run("compare", rows, "--model", "no-model", "--by", by, "--results", results)
    assert str(refusal.value) == reason and not results.exists()


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_predictions_in_the_place_of_requests_are_called_that(command, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(
        b'{"id": 1, "image": "a.png", "expression": "x", "status": "ok", "answer": "", "gold": [1, 2, 3, 4]}'
    )
    with pytest.raises(DeeplayerError, match=r"^no row has a gold box: .*; .*rows.jsonl:1: the row is a prediction: "):
        run(command, rows, "--model", "no-model")


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_results_that_are_no_folder_are_refused(command, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DeeplayerError, match="file is not a folder that can be written: name another"):
        run(command, SAMPLES, "--model", "no-model", "--results", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_fields_that_come_with_the_answer_are_no_unknown_fields(tmp_path):
    arguments = [*COMPARE, "--limit", "2", "--methods", "random", "--results", tmp_path]
    assert list(compared(*arguments, "--by", "width")["n"].values()) == [2]
    with pytest.raises(DeeplayerError, match="no row has a value for 'kin'; the rows have kind; did you mean 'kind'"):
        run("compare", "--from", tmp_path, "--by", "width,kin")


def test_files_of_ground_are_compared(tmp_path):
    ground = ["ground", SAMPLES, "--model", "demo", "--limit", "8"]
    for method in ("none", "random"):
        run(*ground, "--method", method, "-o", tmp_path / f"{method}.jsonl")
    apart = compared("compare", "--from", tmp_path)
    together = compared(*COMPARE, "--limit", "8", "--methods", "random", "--keep", "0.1")
    names = ("method", "keep", "layer", "n", "acc@0.5", "acc@0.5_ci95", "difference")
    assert [[line[name] for name in names] for line in apart] == [[line[name] for name in names] for line in together]
    assert [line["gflops"] for line in apart] == [None, None]


@pytest.mark.parametrize("again", [False, True])
def test_rows_in_error_are_no_success(again, tmp_path, caplog):
    row = {"image": "absent.png", "expression": "the dog", "box": [1, 2, 30, 40]}
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row))
    results = tmp_path / "results"
    arguments = ["compare", tmp_path / "rows.jsonl", "--model", "demo", "--methods", "random", "--results", results]
    finished = CliRunner().invoke(app, [*map(str, arguments)])
    if again:
        finished = CliRunner().invoke(app, ["compare", "--from", str(results)])
    assert finished.exit_code == 1 and "1 row with gold" in finished.stdout
    told = "error rows count as wrong if they have a gold box: 1 of 1 row under none, 1 of 1 row under random"
    assert caplog.messages[-1] == told


def test_what_does_not_count_is_said(tmp_path, caplog):
    rows = [orjson.loads(line) for line in Path(SAMPLES).read_bytes().splitlines()[:3]]
    rows = [row | {"image": str(Path(SAMPLES).parent / row["image"])} for row in rows]
    del rows[0]["box"]
    rows[1]["box"], rows[2]["box"] = [0, 0, 0.5, 0.5], [0.1, 0.1, 0.5, 1]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    shown = run("compare", tmp_path / "rows.jsonl", "--model", "demo", "--methods", "random", "--box-format", "xyxy")
    assert "1 row without gold: not counted" in " ".join(shown.split())
    assert [said for said in caplog.messages if "2 of 2 gold boxes cannot be" in said]


def test_splits_stand_in_columns(tmp_path):
    results, table = tmp_path / "results", tmp_path / "splits.csv"
    arguments = [*COMPARE, "--limit", "12", "--methods", "random", "--keep", "0.2:0.6:0.2", "--results", results]
    found = compared(*arguments, "--by", "kind", "--csv", table)
    assert [(line["method"], line["keep"]) for line in found["lines"]] == [
        ("none", 1.0),
        *(("random", keep) for keep in (0.2, 0.4, 0.6)),
    ]
    assert sum(found["n"].values()) == 12 and set(found["n"]) == {"attribute", "place", "relation"}
    assert table.read_text().startswith("method,keep,layer,published,")
    shown = run("compare", "--from", results, "--by", "kind")
    assert "Below each split: its rows with a gold box" in " ".join(shown.split())
    assert "attribute" in shown and "average" in shown
    assert run("compare", "--from", results, "--by", "kind", "--format", "latex").startswith("\\begin{tabular}")
    assert run("compare", "--from", results, "--format", "markdown").startswith("| method | layer |")
    lines = list(csv.DictReader(run("compare", "--from", results, "--format", "csv").splitlines()))
    assert [line["keep"] for line in lines] == ["1.0", "0.2", "0.4", "0.6"]
    with pytest.raises(DeeplayerError, match="has published figures"):
        run("compare", "--from", results, "--by", "kind", "--published", "deep-layer-paper")
    with pytest.raises(DeeplayerError, match="--published needs --by"):
        run("compare", "--from", results, "--published", "deep-layer-paper")


def test_published_figures_are_printed_with_their_source():
    shown = run("compare", "--published", "deep-layer-paper")
    assert "69.2" in shown and "66.3" in shown and "clawRxiv 2604.00591" in shown
    assert "| deep-layer-mis (published) | 0.1 | 12 | 69.24 |" in run(
        "compare", "--published", "deep-layer-paper", "--format", "markdown"
    )
    with pytest.raises(DeeplayerError, match="--published must be deep-layer-paper, not 'nothing'"):
        run("compare", "--published", "nothing")


@pytest.mark.parametrize(
    "keep", ["0.1:0.5", "0.5:0.1:0.1", "0.1:0.5:0", "0.1:0.5:-1", "0.1:0.5:nan", "0.1:0.9:1e-9", "a"]
)
def test_a_range_of_keeps_is_start_stop_and_step(keep):
    with pytest.raises(DeeplayerError, match="--keep must be shares"):
        run(*COMPARE, "--keep", keep)


def test_methods_are_read_with_spaces_capitals_and_ranges():
    assert split_methods("deep-layer, FastV@layer=2-4@max-tiles=1,none") == [
        "deep-layer", "FastV@layer=2@max-tiles=1", "FastV@layer=3@max-tiles=1", "FastV@layer=4@max-tiles=1", "none",
    ]  # fmt: skip
    base = Settings(method="none")
    assert settings_of("FastV@layer=3", base, None, None) == Settings(method="fastv", layer=3)
    assert settings_of("NONE", base, 3, None) == base
    with pytest.raises(DeeplayerError, match="or 1-7, not '4-2'"):
        split_methods("fastv@layer=4-2")


def test_methods_are_not_scored_by_different_gold_boxes(tmp_path):
    row = {"id": 1, "image": str(Path(SAMPLES).parent / "images" / "scene-0000.png"), "expression": "small blue cross"}
    source, arguments = tmp_path / "rows.jsonl", ["--model", "demo", "--results", tmp_path / "results"]
    source.write_bytes(orjson.dumps(row | {"box": [174, 29, 212, 70]}))
    run("compare", source, *arguments, "--methods", "random")
    source.write_bytes(orjson.dumps(row | {"box": [0, 0, 5, 5]}))
    with pytest.raises(
        DeeplayerError, match=r"rows.jsonl:1: id 1 has another gold box or other fields than in .* folder"
    ):
        run("compare", source, *arguments, "--methods", "random,fastv")
