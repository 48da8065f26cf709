"""``deeplayer report`` from end to end."""

from __future__ import annotations

import sys

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from tests.commands.test_cli import refusal, run

BOX = [1.0, 2.0, 3.0, 4.0]
ROW = {"id": 1, "image": "a.png", "expression": "x", "status": "ok", "box": BOX, "boxes": [BOX], "gold": BOX}


@pytest.fixture
def predictions(tmp_path):
    path = tmp_path / "boxes.jsonl"
    path.write_bytes(b"".join(orjson.dumps(ROW | {"id": n}) + b"\n" for n in range(3)))
    return path


def test_a_page_is_written_and_never_over_another_file(predictions, tmp_path):
    output, before = tmp_path / "report.html", predictions.read_bytes()
    finished = run("report", predictions, "-o", output)
    assert finished.returncode == 0 and finished.stdout == b""
    said = finished.stderr.decode()
    assert "report.html: 3 rows of 1 run, 1 image" in said
    assert said.count("not shown: 1 of 1 image, such as: row 0: a.png is not found") == 1 and "--image-root" in said
    page = output.read_bytes()
    assert "exists: --overwrite replaces it" in refusal(run("report", predictions, "-o", output))
    assert "is also an input" in refusal(run("report", predictions, "-o", predictions, "--overwrite"))
    record = tmp_path / "boxes.jsonl.run.json"
    record.write_bytes(orjson.dumps({"settings": {"method": "none", "keep": 1}, "circumstances": {}, "counts": None}))
    for other in (predictions, record):
        assert "is also an input" in refusal(run("report", tmp_path, "-o", other, "--overwrite"))
    assert "is a folder: name a file in it" in refusal(run("report", predictions, "-o", tmp_path, "--overwrite"))
    assert "there is no folder" in refusal(run("report", predictions, "-o", tmp_path / "no" / "report.html"))
    assert (output.read_bytes(), predictions.read_bytes()) == (page, before)


def test_options_reach_the_page(predictions, tmp_path, caplog):
    gold, output = tmp_path / "gold.jsonl", tmp_path / "report.html"
    gold.write_bytes(orjson.dumps({"id": 0, "box": [5, 5, 9, 9]}) + b"\n")
    options = ["--gold", gold, "--title", "A & B", "--by", "image", "--max-images", "0", "--overwrite"]
    finished = CliRunner().invoke(app, [*map(str, ["report", predictions, "-o", output, *options])])
    assert finished.exit_code == 0, finished.exception
    page = output.read_text()
    assert "<title>A &amp; B</title>" in page and "By <bdi>image</bdi>" in page and '"iou":0.0' in page
    assert "left out by --max-images 0: 1 of 1 image; their rows are on the page" in caplog.messages


def test_a_file_that_does_not_fit_its_record_is_told(predictions, tmp_path, caplog):
    record = {"settings": {"method": "none", "keep": 1.0}, "circumstances": {}, "counts": None}
    (tmp_path / "boxes.jsonl.run.json").write_bytes(orjson.dumps(record))
    CliRunner().invoke(app, ["report", str(predictions), "-o", str(tmp_path / "report.html")])
    assert any("is not finished: its run was stopped" in message for message in caplog.messages)


def test_a_missing_template_engine_is_told_before_the_work(predictions, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    refused = CliRunner().invoke(app, ["report", "absent.jsonl", "-o", str(tmp_path / "report.html")])
    assert "pip install 'deeplayer[report]'" in str(refused.exception)
