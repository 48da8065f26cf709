"""``deeplayer show``: rows as pictures."""

from __future__ import annotations

import orjson
import pytest
from PIL import Image

from tests.commands.test_cli import refusal, run


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
        (["-o", "no/where"], "there is no folder no"),
    ],
)
def test_wrong_usage_is_refused_before_any_picture(predictions, tmp_path, monkeypatch, options, problem):
    monkeypatch.chdir(tmp_path)
    assert problem in refusal(run("show", "boxes.jsonl", "-o", "out", *options))
    assert not (tmp_path / "out").exists()


def test_kept_tokens_that_are_not_of_their_tiles_cost_their_row_only(predictions, tmp_path):
    rows = predictions.read_text().replace("[0,5]", "[0,500]", 1)
    predictions.write_text(rows)
    finished = run("show", predictions, "-o", tmp_path / "out", "--id", "a", "--id", "3")
    assert finished.returncode == 1 and b"row a: there is no visual token 500: the image has 8" in finished.stderr
    assert b"1 picture;" in finished.stderr
