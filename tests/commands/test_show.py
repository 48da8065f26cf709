"""``deeplayer show``: rows as pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from PIL import Image
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError
from tests.commands.test_cli import run

if TYPE_CHECKING:
    from click.testing import Result

SAMPLES = str(Path(__file__).parents[2] / "sample_data" / "requests.jsonl")


@pytest.fixture
def predictions(tmp_path):
    """Two answered rows and an error row about one image, and a row whose image is gone."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48), "white").save(tmp_path / "images/1.png")
    row = {"image": "images/1.png", "expression": "the dog", "status": "ok", "box": [1, 2, 30, 40]}
    row |= {"boxes": [row["box"]], "gold": [2, 2, 30, 44], "iou": 0.8, "width": 64, "height": 48, "score": 0.5}
    row |= {"kept": [0, 5], "tiles": {"columns": 2, "rows": 1, "thumbnail": False, "side": 2}, "method": "fastv"}
    failed = {"id": 3, "image": "images/1.png", "status": "error", "error": {"type": "bad_box", "message": "m"}}
    rows = [row | {"id": "a"}, row | {"id": "../../b"}, failed, row | {"id": "gone", "image": "images/2.png"}]
    path = tmp_path / "boxes.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    return path


def test_every_row_becomes_a_picture(predictions, tmp_path):
    out = tmp_path / "deep" / "pictures"
    out.parent.mkdir()
    finished = run("show", predictions, "-o", out)
    assert finished.returncode == 1 and finished.stdout == b""
    assert b"row gone: images/2.png is not found: --image-root" in finished.stderr
    assert b"pictures: 3 pictures; rows not drawn: 1 image_missing" in finished.stderr
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 3 and {"a.png", "3.png"} < {*names} and names[-1].startswith("b-")
    assert [path.name for path in out.parent.iterdir()] == ["pictures"]  # no id leads out of the folder
    again = run("show", predictions, "-o", out)
    assert again.returncode == 2 and b"a.png exists: --overwrite replaces it" in again.stderr
    chosen = run("show", predictions, "-o", out, "--overwrite", "--id", "a", "--id", "3")
    assert chosen.returncode == 0 and b"2 pictures" in chosen.stderr
    jpeg = run("show", predictions, "-o", out, "--format", "jpeg", "--limit", "1")
    assert jpeg.returncode == 0 and (out / "a.jpg").read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--id", "nobody"], "boxes.jsonl has no row with the id 'nobody'"),
        (["--font", "boxes.jsonl"], "--font boxes.jsonl is not a font"),
        (["-o", "boxes.jsonl"], "boxes.jsonl is not a folder"),
        (["-o", "-"], "- is not a folder"),
        (["-o", "no/where"], "there is no folder no"),
        (["--layer", "3"], "--layer is the layer of --attention"),
        (["--attention"], "no record beside boxes.jsonl names its model: give --model"),
        (["--attention", "--model", "demo", "--layer", "9"], "--layer 9 is out of range: this model has layers 1 to 8"),
    ],
)
def test_wrong_usage_is_refused_before_any_picture(predictions, tmp_path, monkeypatch, options, problem):
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["show", "boxes.jsonl", "-o", "out", *options]).exception
    assert isinstance(refused, DeeplayerError) and problem in str(refused)
    assert not (tmp_path / "out").exists()


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "none.jsonl").touch()
    refused = CliRunner().invoke(app, ["show", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "out")]).exception
    assert isinstance(refused, DeeplayerError) and str(refused).endswith(
        "none.jsonl has no rows: there is nothing to show"
    )
    assert not (tmp_path / "out").exists()


def test_rows_on_stdin_are_refused(tmp_path):
    refused = CliRunner().invoke(app, ["show", "-", "-o", str(tmp_path / "out")], input="{}").exception
    assert isinstance(refused, DeeplayerError) and "- can be read only once" in str(refused)


def test_kept_tokens_that_are_not_of_their_tiles_cost_their_row_only(predictions, tmp_path):
    rows = predictions.read_text().replace("[0,5]", "[0,500]", 1)
    predictions.write_text(rows)
    finished = run("show", predictions, "-o", tmp_path / "out", "--id", "a", "--id", "3")
    assert finished.returncode == 1 and b"row a: there is no visual token 500: the image has 8" in finished.stderr
    assert b"1 picture;" in finished.stderr


def test_a_run_draws_its_rows_on_the_way(tmp_path, monkeypatch, caplog):
    def deeplayer(*arguments: str) -> Result:
        caplog.clear()
        with caplog.at_level("INFO", logger="deeplayer"):
            return CliRunner().invoke(app, arguments)

    monkeypatch.chdir(tmp_path)
    arguments = ["ground", SAMPLES, "--model", "demo", "--limit", "2", "--with-kept", "--show", "pictures", "-o"]
    assert deeplayer(*arguments, "boxes.jsonl").exit_code == 0 and "pictures: 2 pictures" in caplog.text
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["scene-0000-0.png", "scene-0000-1.png"]
    assert "--show pictures is not empty" in str(deeplayer(*arguments, "other.jsonl").exception)
    (tmp_path / "pictures/scene-0000-1.png").write_bytes(b"a holiday")
    (tmp_path / "pictures/scene-0000-0.png").unlink()
    assert deeplayer(*arguments, "boxes.jsonl", "--overwrite").exit_code == 0  # a picture that fails costs no row
    assert "pictures: 1 picture; rows not drawn: 1 not_written" in caplog.text
    assert (tmp_path / "pictures/scene-0000-1.png").read_bytes() == b"a holiday"
    assert deeplayer("show", "boxes.jsonl", "--attention", "-o", "heat").exit_code == 0  # of the run's own model
    drawn = [(tmp_path / folder / "scene-0000-0.png").read_bytes() for folder in ("pictures", "heat")]
    assert drawn[0] != drawn[1]
    record = tmp_path / "boxes.jsonl.run.json"
    record.write_text(re.sub('"weights": ".*"', '"weights": "other"', record.read_text()))
    other = deeplayer("show", "boxes.jsonl", "--attention", "-o", "heat", "--overwrite").exception
    assert "--model demo is not the model that wrote boxes.jsonl" in str(other)


def test_a_pipe_is_refused(predictions, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused = CliRunner().invoke(app, ["show", str(tmp_path / "pipe"), "-o", str(tmp_path / "out")]).exception
    assert "can be read only once" in str(refused)
