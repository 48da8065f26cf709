"""``deeplayer sweep`` in this process, on the demo model."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli import checkpoints
from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError

SAMPLES = str(Path(__file__).parents[2] / "sample_data")
SWEEP = ["sweep", SAMPLES, "--model", "demo", "--limit", "24"]


def run(*arguments):
    finished = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "80"})
    if finished.exception is not None:
        raise finished.exception
    return finished.stdout


def test_the_layer_where_the_model_looks_is_chosen(tmp_path, caplog):
    pytest.importorskip("matplotlib")
    table, picture, results = tmp_path / "layers.csv", tmp_path / "layers.svg", tmp_path / "results"
    files = ["--csv", table, "--plot", picture, "--results", results]
    told = " ".join(run(*SWEEP, "--layers", "3,6", *files).split())
    assert "Layer 6 (index 5) is chosen" in told
    assert "report rows about" in told and "difference" in told
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["layer"] for row in rows] == ["3", "6"]
    assert float(rows[1]["drafted_mass"]) > 0.5 > float(rows[0]["drafted_mass"])
    drawn = picture.read_text()
    assert "<!-- 4 -->" in drawn and "<!-- 3.5 -->" not in drawn  # there is no layer 3.5
    assert "a scout counts in GFLOPs only" in told
    assert "are about one image" not in caplog.text
    again = orjson.loads(run(*SWEEP, "--layers", "3,6", "--results", results, "--json"))  # answers nothing anew
    assert again["chosen"] == 6 and again["chosen_in"] == float(rows[1]["best_in"])
    assert again["n_select"] + again["n_report"] == 24 and again["attention"]["n"] <= again["n_select"]
    assert [len(again["attention"][kind]) for kind in ("last", "text", "drafted")] == [8, 8, 8]
    assert again["report"]["chosen"]["n"] == again["n_report"]


def test_fields_choose_and_report(caplog):
    found = orjson.loads(run(*SWEEP, "--layers", "6", "--select-on", "image=images/scene-0000.png", "--json"))
    assert found["n_select"] + found["n_report"] == 24 and found["n_left_out"] == 0
    sets = ["--select-on", "image=images/scene-0000.png", "--report-on", "image=images/scene-0001.png"]
    told = run(*SWEEP, "--layers", "6", *sets)
    assert "16 rows in neither set: every layer answers them too, and nothing uses them" in caplog.text
    for name in ("selection", "report"):
        assert f"all {name} rows are about one image, so their intervals mean little: give more images" in caplog.text
    assert "On 4 report rows" in " ".join(told.split()) and "16 rows in neither set: not used." in told
    with pytest.raises(DeeplayerError, match=r"share \d images?"):
        run(*SWEEP, "--layers", "6", "--select-on", "kind=place", "--report-on", "kind=relation")


def test_rows_that_cannot_choose_or_report_are_refused_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "load", lambda *_, **__: pytest.fail("loaded a model"))
    rows = [{"image": f"{number}.png", "expression": "the dog"} for number in range(4)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    with pytest.raises(DeeplayerError, match="no row has a gold box"):
        run("sweep", tmp_path / "rows.jsonl", "--model", "demo")
    with pytest.raises(DeeplayerError, match="there is no report row"):
        run("sweep", SAMPLES, "--model", "demo", "--limit", "2")


def test_error_rows_count_as_wrong_and_show_in_the_exit_code(tmp_path):
    lines = (Path(SAMPLES) / "requests.jsonl").read_bytes().splitlines()[:8]
    missing = {"image": "images/none.png", "expression": "the dog", "box": [1, 2, 30, 40]}
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*lines, orjson.dumps(missing)]))
    arguments = ["sweep", str(tmp_path / "rows.jsonl"), "--image-root", SAMPLES, "--model", "demo", "--layers", "6"]
    finished = CliRunner().invoke(app, arguments)
    assert finished.exit_code == 1, finished.output
    assert "is chosen" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--layers", "2,x"], r"--layers must be numbers"),
        (["--layers", "8"], r"--layers: layer 8 is out of range"),
        (["--method", "none"], "prunes nothing"),
        (["--method", "pyramiddrop", "--layers", "2"], "drops after several layers"),
        (["--select-on", "kind"], r"--select-on must be FIELD=VALUE"),
        (["--report-on", "kind=banana"], "no row has this value; its values are attribute, place, relation"),
        (["--select-on", "banana=1"], "no row has a value for 'banana'; the rows have kind"),
    ],
)
def test_wrong_input_is_refused(arguments, reason):
    with pytest.raises(DeeplayerError, match=reason):
        run(*SWEEP, *arguments)


def test_what_the_model_does_not_know_is_said_once(tmp_path, caplog):
    rows = [orjson.loads(line) for line in (Path(SAMPLES) / "requests.jsonl").read_bytes().splitlines()[:8]]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(orjson.dumps(row | {"expression": "the dog"}) for row in rows))
    run("sweep", tmp_path / "rows.jsonl", "--image-root", SAMPLES, "--model", "demo", "--layers", "6")
    assert len([message for message in caplog.messages if "(said once)" in message]) == 1
