"""``deeplayer data`` and ``--from-format`` from end to end: import, ground, export."""

from __future__ import annotations

import json
import logging

import orjson
import pytest
from PIL import Image
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError
from tests.commands import test_cli
from tests.formats.layouts import NAMES, write_coco, write_internvl, write_lmms


@pytest.fixture
def run(caplog):
    """Run a command in this process; return its exit code, its output, and what it said."""
    caplog.set_level(logging.INFO)

    def invoke(*arguments, **more):
        caplog.clear()
        finished = CliRunner().invoke(app, [*map(str, arguments)], **more)
        if isinstance(finished.exception, DeeplayerError):
            return 2, finished.stdout, str(finished.exception)
        if finished.exception is not None and not isinstance(finished.exception, SystemExit):
            raise finished.exception
        return finished.exit_code, finished.stdout, "\n".join(caplog.messages)

    return invoke


@pytest.fixture
def predictions(tmp_path):
    box = [1.0, 2.0, 3.0, 4.0]
    row = {"id": 1, "image": "a.png", "expression": "x", "status": "ok", "box": box, "boxes": [box]}
    row |= {"width": 9, "height": 9, "meta": {"label": "cat"}, "score": 0.5}
    path = tmp_path / "boxes.jsonl"
    path.write_bytes(orjson.dumps(row) + b"\n")
    return path


def coco_images(tmp_path, names=NAMES):
    folder = tmp_path / "coco" / "train2014"
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (200, 100)).save(folder / name)
    return tmp_path / "coco"


def rows_of(text):
    return [orjson.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("command", [["merge"], ["export", "--to", "coco"]])
def test_the_record_of_a_run_is_an_input(command, predictions, run):
    record = predictions.with_name("boxes.jsonl.run.json")
    record.write_text("{}")
    code, _, said = run("data", *command, predictions, "-o", record, "--overwrite")
    assert code == 2 and "is also an input" in said and record.read_text() == "{}"


def test_merge_replaces_no_record(predictions, tmp_path, run):
    record = tmp_path / "whole.jsonl.run.json"
    record.write_text("mine")
    code, _, said = run("data", "merge", predictions, "-o", tmp_path / "whole.jsonl")
    assert code == 2 and f"{record} exists: --overwrite replaces it" in said and record.read_text() == "mine"


def test_refcoco_in_labels_out(tmp_path):
    """With the real command, as its users run it."""
    source, requests, boxes = write_internvl(tmp_path), tmp_path / "requests.jsonl", tmp_path / "boxes.jsonl"
    finished = test_cli.run("data", "import", source, "--images", coco_images(tmp_path), "-o", requests)
    assert finished.returncode == 0, finished.stderr.decode()
    assert b"5 requests from InternVL JSON Lines" in finished.stderr and b"10,834" in finished.stderr
    assert test_cli.run("ground", requests, "--model", "demo", "-o", boxes).returncode == 0
    rows = rows_of(boxes.read_bytes())
    assert [row["expression"] for row in rows][:2] == ["left dog", "brown dog"] and rows[0]["gold"] == [10, 20, 60, 60]
    assert rows[0]["meta"] == {"dataset": "refcoco", "split": "val", "image_id": 9}
    exported = test_cli.run("data", "export", boxes, "--to", "coco", "-o", tmp_path / "coco.json")
    assert exported.returncode == 0 and b"boxes with" in exported.stderr
    assert {image["width"] for image in json.loads((tmp_path / "coco.json").read_text())["images"]} <= {200}


@pytest.mark.parametrize("target", ["coco", "coco-results", "yolo", "labelstudio", "voc", "csv", "fiftyone"])
def test_every_target_from_the_command_line(target, predictions, tmp_path, run):
    arguments = ("data", "export", predictions, "--to", target, "-o", tmp_path / "out")
    code, _, said = run(*arguments)
    assert code == 0 and "1 box with 1 label on 1 image" in said and (tmp_path / "out").exists()
    assert "out exists: --overwrite replaces it" in run(*arguments)[2]
    assert run(*arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "2 rows with a score below 0.9"),
        ({"status": "error", "box": None, "boxes": []}, "1 row with a score below 0.9, 1 row in error"),
        ({"status": "no_box", "box": None, "boxes": []}, "1 row with a score below 0.9, 1 row without a box"),
    ],
)
def test_an_export_without_a_box_is_written_and_shows_in_the_exit_code(changes, reason, predictions, run):
    row = orjson.loads(predictions.read_bytes())
    predictions.write_bytes(b"%b\n%b\n" % (orjson.dumps(row), orjson.dumps(row | {"id": 2} | changes)))
    output = predictions.with_name("coco.json")
    code, _, said = run("data", "export", predictions, "--to", "coco", "-o", output, "--min-score", "0.9")
    assert code == 1 and f"{output}: no boxes, as every row of {predictions} is left out: {reason}" in said
    exported = json.loads(output.read_text())
    assert exported["annotations"] == [] and len(exported["images"]) == 1  # all the same an image to label


def test_an_image_root_may_be_named_from_another_folder(tmp_path, run, monkeypatch):
    box = [1.0, 2.0, 3.0, 4.0]
    row = {"id": 1, "image": str(tmp_path / "photos" / "a.png"), "expression": "x", "status": "ok", "box": box}
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row | {"boxes": [box], "width": 9, "height": 9}) + b"\n")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    code, _, said = run("data", "export", "../rows.jsonl", "--to", "csv", "-o", "../a.csv", "--image-root", "../photos")
    assert code == 0 and f"start from {tmp_path / 'photos'}" in said
    assert "1,a.png," in (tmp_path / "a.csv").read_text()


def test_an_export_of_no_rows_is_refused(predictions, run):
    predictions.write_bytes(b"")
    output = predictions.with_name("coco.json")
    code, _, said = run("data", "export", predictions, "--to", "coco", "-o", output)
    assert code == 2 and said == f"{predictions} has no rows: there is nothing to export" and not output.exists()


def test_what_is_refused(predictions, tmp_path, run):
    before = predictions.read_bytes()
    assert "is also an input" in run("data", "export", predictions, "--to", "csv", "-o", predictions, "--overwrite")[2]
    assert "there is no folder" in run("data", "export", predictions, "--to", "csv", "-o", tmp_path / "no" / "a")[2]
    broken, output = tmp_path / "instances.json", tmp_path / "requests.jsonl"
    broken.write_bytes(write_coco(tmp_path).read_bytes()[:-5])
    output.write_bytes(b"precious")
    code, _, said = run("data", "import", broken, "-o", output, "--overwrite")
    assert code == 2 and "instances.json is not JSON" in said
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes(b'{"image": "a.jpg", "expression": ""}\n')
    assert "no row is a request, such as: " in run("data", "import", lines, "-o", output, "--overwrite")[2]
    assert output.read_bytes() == b"precious" and predictions.read_bytes() == before


def test_rows_that_are_left_out_show_in_the_exit_code(tmp_path, run):
    path = write_internvl(tmp_path)
    path.write_bytes(path.read_bytes() + b"{broken\n")
    code, _, said = run("data", "import", path, "--image-root", coco_images(tmp_path), "-o", tmp_path / "out.jsonl")
    assert code == 1 and "1 row left out, the first: " in said and "refcoco_val.jsonl:6: the row is not JSON" in said
    assert len(rows_of((tmp_path / "out.jsonl").read_bytes())) == 5


def test_import_says_how_many_requests_have_no_box(tmp_path, run):
    (tmp_path / "rows.csv").write_text("image,expression,x1,y1,x2\na.png,x,1,2,3\n")
    code, _, said = run("data", "import", tmp_path / "rows.csv", "-o", tmp_path / "out.jsonl")
    assert code == 0 and said.endswith("1 request from CSV or TSV with named columns, 1 of them without a box")


def test_gold_boxes_in_another_format_end_a_run_before_its_model(tmp_path, run):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    boxes = [[60, 40, 30, 20], [50, 10, 40, 80], [70, 30, 25, 25]]
    rows = [{"image": "a.png", "expression": f"thing {n}", "box": box} for n, box in enumerate(boxes)]
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    for command in ("ground", "compare"):  # the model does not exist: nobody looked for it
        code, _, said = run(command, source, "--model", "no-such-model")
        assert code == 2 and "3 of 3 gold boxes cannot be [x1, y1, x2, y2] in pixels" in said
        assert "--box-format xywh" in said
    code, shown, _ = run("ground", source, "--model", "demo", "--box-format", "xywh")
    assert code == 0 and rows_of(shown)[0]["gold"] == [60, 40, 90, 60]


def test_ground_and_compare_take_other_formats(tmp_path, run):
    pytest.importorskip("pyarrow")
    parquet, internvl = write_lmms(tmp_path), write_internvl(tmp_path)
    for command in ("ground", "compare"):  # the model does not exist: nobody looked for it
        code, _, said = run(command, parquet, "--model", "no-such-model")
        assert code == 2 and "val-00000-of-00001.parquet is RefCOCO as parquet" in said
        assert "give --from-format auto" in said and "`deeplayer data import`" in said
    _, _, said = run("ground", internvl, "--model", "no-such-model")
    assert "is InternVL JSON Lines, and its images are not where its rows say: give --from-format auto" in said
    _, _, said = run("ground", parquet, "--from-format", "auto", "--model", "no-such-model")
    assert "lie inside of it" in said and "-o" in said

    boxes = tmp_path / "boxes.jsonl"
    code, _, said = run("ground", parquet, "--from-format", "auto", "--model", "demo", "-o", boxes)
    assert code == 0 and said.count("10,834") == 1
    rows = rows_of(boxes.read_bytes())
    assert [row["id"] for row in rows] == [f"RefCOCO/val-00000-of-00001.parquet:{n}" for n in range(1, 6)]
    assert rows[0]["gold"] == [10, 20, 60, 60] and rows[0]["meta"]["image_id"] == 9
    assert len(list((tmp_path / "boxes.jsonl.images").iterdir())) == 2
    _, _, said = run("ground", parquet, "--from-format", "auto", "--model", "demo", "-o", boxes, "--resume")
    assert "nothing left to do" in said
    compare = ("compare", parquet, "--from-format", "parquet", "--model", "demo", "--results", tmp_path / "runs")
    code, shown, _ = run(*compare, "--json")
    assert code == 0 and len(orjson.loads(shown)) == 3


def test_rows_of_other_formats_that_are_wrong_are_error_rows(tmp_path, run):
    path = write_internvl(tmp_path)
    path.write_bytes(path.read_bytes() + b"{broken\n")
    folder = coco_images(tmp_path, NAMES[:1])
    code, shown, said = run("ground", path, "--from-format", "auto", "--image-root", folder, "--model", "demo")
    kinds = [row["error"]["type"] for row in rows_of(shown) if row["status"] == "error"]
    assert code == 1 and kinds == ["image_missing", "image_missing", "bad_json"]
    assert "1 image of 2 rows not found, the first is" in said


def test_folders_of_labels_are_replaced_as_a_whole(predictions, tmp_path, run):
    folder = tmp_path / "dataset"
    (folder / "labels").mkdir(parents=True)
    (folder / "labels" / "stale.txt").write_text("0 0.5 0.5 1 1")
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_text("a picture")
    arguments = ("data", "export", predictions, "--to", "yolo", "-o", folder)
    assert "dataset exists: --overwrite replaces it" in run(*arguments)[2]
    code, _, said = run(*arguments, "--overwrite")
    assert code == 0 and f"{folder}/images/a.png is where trainers look for" in said
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["data.yaml", "images/a.png", "labels/a.txt"] and not list(tmp_path.glob(".dataset*"))


def test_photos_that_are_turned(tmp_path, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (60, 40)).save(photos / "a.jpg", exif=exif)
    boxes, out = tmp_path / "boxes.jsonl", tmp_path / "out.csv"
    run("ground", photos, "-e", "the red square", "--model", "demo", "-o", boxes)
    row = rows_of(boxes.read_bytes())[0] | {"status": "ok", "box": [10, 5, 30, 15], "boxes": [[10, 5, 30, 15]]}
    boxes.write_bytes(orjson.dumps(row) + b"\n")
    code, _, said = run("data", "export", boxes, "--to", "csv", "-o", out)
    assert code == 0 and "EXIF turns 1 of the images" in said and "give --exif turned" in said
    assert "10,5,30,15" in out.read_text().replace(".0", "")
    code, _, said = run("data", "export", boxes, "--to", "csv", "-o", out, "--overwrite", "--exif", "turned")
    assert code == 0 and "in pixels of the turned images" in said
    shown = out.read_text().replace(".0", "").strip()
    assert "25,10,35,30" in shown and shown.endswith("40,60")
    (photos / "a.jpg").unlink()
    code, _, said = run("data", "export", boxes, "--to", "csv", "-o", out, "--overwrite", "--exif", "turned")
    assert code == 2 and "--exif turned needs the images" in said
