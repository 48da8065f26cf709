"""``deeplayer data`` from end to end: import, ground, export."""

from __future__ import annotations

import json

import orjson
import pytest

from tests.commands.test_cli import refusal, run
from tests.formats.test_imports import write_internvl


@pytest.fixture
def predictions(tmp_path):
    box = [1.0, 2.0, 3.0, 4.0]
    row = {"id": 1, "image": "a.png", "expression": "x", "status": "ok", "box": box, "boxes": [box]}
    row |= {"width": 9, "height": 9, "meta": {"label": "cat"}, "score": 0.5}
    path = tmp_path / "boxes.jsonl"
    path.write_bytes(orjson.dumps(row) + b"\n")
    return path


def test_refcoco_in_labels_out(tmp_path):
    from PIL import Image

    folder = tmp_path / "coco" / "train2014"
    folder.mkdir(parents=True)
    for name in ("COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg"):
        Image.new("RGB", (200, 100)).save(folder / name)
    source, requests, boxes = write_internvl(tmp_path), tmp_path / "requests.jsonl", tmp_path / "boxes.jsonl"
    finished = run("data", "import", source, "--images", tmp_path / "coco", "-o", requests)
    assert finished.returncode == 0, finished.stderr.decode()
    assert b"5 requests from InternVL JSON Lines" in finished.stderr and b"10,834" in finished.stderr
    assert run("ground", requests, "--model", "demo", "-o", boxes).returncode == 0
    rows = [orjson.loads(line) for line in boxes.read_bytes().splitlines()]
    assert [row["expression"] for row in rows][:2] == ["left dog", "brown dog"] and rows[0]["gold"] == [10, 20, 60, 60]
    assert rows[0]["meta"] == {"dataset": "refcoco", "split": "val"}
    exported = run("data", "export", boxes, "--to", "coco", "-o", tmp_path / "coco.json")
    assert exported.returncode == 0 and b"boxes with" in exported.stderr
    assert {image["width"] for image in json.loads((tmp_path / "coco.json").read_text())["images"]} <= {200}


@pytest.mark.parametrize("target", ["coco", "coco-results", "yolo", "labelstudio", "voc", "csv", "fiftyone"])
def test_every_target_from_the_command_line(target, predictions, tmp_path):
    output = tmp_path / "out"
    finished = run("data", "export", predictions, "--to", target, "-o", output)
    assert finished.returncode == 0, finished.stderr.decode()
    assert b"1 boxes with 1 labels on 1 images" in finished.stderr and output.exists()
    assert "out exists: --overwrite replaces it" in refusal(
        run("data", "export", predictions, "--to", target, "-o", output)
    )
    assert run("data", "export", predictions, "--to", target, "-o", output, "--overwrite").returncode == 0


def test_what_is_refused(predictions, tmp_path):
    before = predictions.read_bytes()
    same = ("data", "export", predictions, "--to", "csv", "-o", predictions, "--overwrite")
    assert "is also an input" in refusal(run(*same))
    assert "there is no folder" in refusal(
        run("data", "export", predictions, "--to", "csv", "-o", tmp_path / "no" / "a")
    )
    broken = tmp_path / "refcoco_val.jsonl"
    broken.write_bytes(b'{"image": "a.jpg", "sent": "x", "bbox": [1, 2, 3, 4], "width": 9, "height": 9}\n{broken\n')
    output = tmp_path / "requests.jsonl"
    output.write_bytes(b"precious")
    assert "refcoco_val.jsonl:2 is not JSON" in refusal(run("data", "import", broken, "-o", output, "--overwrite"))
    assert output.read_bytes() == b"precious" and predictions.read_bytes() == before


def test_gold_boxes_in_another_format_end_a_run_before_its_model(tmp_path):
    from PIL import Image

    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    boxes = [[60, 40, 30, 20], [50, 10, 40, 80], [70, 30, 25, 25]]
    rows = [{"image": "a.png", "expression": f"thing {n}", "box": box} for n, box in enumerate(boxes)]
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    for command in ("ground", "compare"):  # the model does not exist: nobody looked for it
        said = refusal(run(command, source, "--model", "no-such-model"))
        assert "3 of 3 gold boxes cannot be [x1, y1, x2, y2] in pixels" in said and "--box-format xywh" in said
    piped = run("ground", "-", "--model", "demo", "--image-root", tmp_path, stdin=source.read_bytes())
    assert piped.returncode == 2 and b"stdin: 3 of 3 gold boxes" in piped.stderr
    finished = run("ground", source, "--model", "demo", "--box-format", "xywh")
    assert finished.returncode == 0, finished.stderr.decode()
    assert next(orjson.loads(line)["gold"] for line in finished.stdout.splitlines()) == [60, 40, 90, 60]
