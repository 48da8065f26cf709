"""``data check``: everything that is wrong with rows and images is named with its first place, without a model."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import orjson
import pytest
from PIL import Image
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import RowError
from deeplayer_cli.formats.check import DataCheck, odd_expression
from deeplayer_cli.schema import BadRequest, Prediction, parse_request
from tests.formats.layouts import LAYOUTS, json_lines, write_internvl


@pytest.fixture
def folder(tmp_path):
    """Images: a.png, its copy b.png, a photo that other programs turn, and one that is broken."""
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    return tmp_path


def check(*arguments):
    """The exit code of a check, and its report."""
    finished = CliRunner().invoke(app, ["data", "check", *map(str, arguments), "--json"])
    return finished.exit_code, json.loads(finished.stdout)


def rows_in(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_bytes(json_lines([{"image": "a.png", "expression": f"thing {n}"} | row for n, row in enumerate(rows)]))
    return path


def test_nothing_is_wrong(folder):
    path = rows_in(folder, {"box": [1, 2, 30, 40]}, {"box": [5, 5, 20, 20]}, {})
    assert check(path) == (0, {"rows": 3, "images": 1, "boxes": 2, "turned": 0, "problems": []})
    shown = CliRunner().invoke(app, ["data", "check", str(path)])
    assert shown.stdout == "3 rows, 1 image (0 turned by EXIF), 2 boxes: no problems\n"


def test_names_that_are_not_utf_8(folder):
    """A folder of images with such names is checked as any other."""
    photos = folder / os.fsdecode(b"lat\xe9")
    photos.mkdir()
    for name in (b"\xff.png", b"\xfe.png"):
        (photos / os.fsdecode(name)).write_bytes((folder / "a.png").read_bytes())
    code, report = check(photos, "-e", "the dog", "-e", "a=the dog")
    assert (code, report["rows"], report["images"]) == (1, 4, 2)
    found = [(one["kind"], one["count"], one["message"]) for one in report["problems"]]
    assert found[0] == ("duplicate_row", 2, "its image, expression and box occurred before")
    assert found[1] == ("duplicate_image", 1, r"\xff.png is a copy of an image that occurred before")


@pytest.mark.parametrize(
    ("rows", "kind", "count", "line", "said"),
    [
        ([{"id": 1}, {"id": 1}, {"id": 1}], "duplicate_id", 2, 2, "id 1 occurred before"),
        ([{}, {"expression": "thing 0"}], "duplicate_row", 1, 2, "occurred before"),
        ([{"box": [1, 1, 9, 9]}, {"expression": "thing 0", "box": [2, 2, 9, 9]}], "ambiguous", 1, 2, "another box"),
        ([{}, {"image": "b.png"}], "duplicate_image", 1, 2, "b.png is a copy"),
        ([{"image": "turned.jpg"}, {"image": "turned.jpg"}], "exif_orientation", 1, 1, "orientation 6"),
        ([{"image": "turned.jpg", "width": 40, "height": 60}], "size_mismatch", 1, 1, "run with --exif-transpose"),
        ([{}, {"width": 9, "height": 9}], "size_mismatch", 1, 2, "stored image has 60 x 40"),
        ([{"image": "gone.png"}] * 3, "image_missing", 3, 1, "gone.png does not exist"),
        ([{"image": "broken.png"}, {}], "image_broken", 1, 1, "broken.png"),
        ([{"box": [100, 1, 200, 9]}], "box_outside", 1, 1, "lies outside the image of 60 x 40"),
        ([{"box": [10, 1, 80, 9]}], "box_over_edge", 1, 1, "leaves its image of 60 x 40"),
        ([{"box": [10, 1, 11, 9]}], "tiny_box", 1, 1, "less than 2 pixels"),
        ([{}, {"box": [9, 9, 3, 3]}], "bad_box", 1, 2, "box must be"),
        ([{"expression": ""}], "bad_expression", 1, 1, "expression must be text"),
        ([{"expression": "0 0.5 0.5 0.25 0.1"}], "odd_expression", 1, 1, "looks like a line of YOLO labels"),
        ([{"box": [40, 30, 10, 9]}, {"box": [30, 20, 9, 9]}, {"box": [50, 3, 9, 20]}], "box_format", 1, 1, "xywh"),
    ],
)  # fmt: skip
def test_each_problem_is_named_with_its_place(rows, kind, count, line, said, folder):
    path = rows_in(folder, *rows)
    code, report = check(path)
    found = {problem["kind"]: problem for problem in report["problems"]}
    assert code == 1 and (found[kind]["count"], found[kind]["place"]) == (count, f"{folder.name}/rows.jsonl:{line}")
    assert said in found[kind]["message"]


def test_the_table_shows_count_problem_and_place(folder):
    path = rows_in(folder, {"image": "gone.png"}, {"id": 1}, {"id": 1})
    path.write_bytes(path.read_bytes() + b"{broken\n")
    shown = CliRunner().invoke(app, ["data", "check", str(path)], env={"COLUMNS": "200"})
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 1 and lines[-1].endswith("0 boxes: 3 kinds of problem")
    assert any(line.split()[:3] == ["1", "bad_json", f"{folder.name}/rows.jsonl:4"] for line in lines)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_format_can_be_checked(name, tmp_path):
    path, _, box_format = LAYOUTS[name][0](tmp_path), *LAYOUTS[name][1:]
    code, report = check(path, *(["--box-format", box_format] if box_format else []))
    kinds = {problem["kind"] for problem in report["problems"]}
    assert code in (0, 1) and report["rows"] == report["boxes"] == 5
    assert kinds <= {"image_missing", "split_count", "duplicate_image"}, "the images of most are elsewhere"


def test_images_are_searched_and_splits_counted(tmp_path):
    path = write_internvl(tmp_path)
    code, report = check(path, "--image-root", tmp_path)
    assert code == 1 and [problem["kind"] for problem in report["problems"]] == ["image_missing", "split_count"]
    assert report["problems"][1]["message"] == "refcoco val has 5 expressions, and the standard split has 10,834"


def test_what_cannot_be_checked(tmp_path):
    finished = CliRunner().invoke(app, ["data", "check", str(tmp_path / "gone.jsonl")])
    assert "does not exist" in str(finished.exception)
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    assert "neither .jsonl nor an image: give --from-format auto" in str(
        CliRunner().invoke(app, ["data", "check", str(tmp_path / "a.bin")]).exception
    )


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("0 0.5 0.5 0.25 0.1", "YOLO"),
        ("12, 14; 15", "numbers only"),
        ("labels/0001.txt", "name of a file"),
        ('{"label": "cat"}', "JSON"),
        ("x" * 1001, "more than 1000 characters"),
        ("2 dogs", None),
        ("the dog with the number 7", None),
        ("dog.", None),
        ("person in no. 14", None),
    ],
)
def test_expressions_that_look_like_label_files(expression, reason):
    found = odd_expression(expression)
    assert (found is None) == (reason is None) and (reason or "") in (found or "")


def test_memory_does_not_grow_with_the_text_of_rows():
    def rows():
        for n in range(4000):
            yield parse_request(
                orjson.dumps({"image": "gone.png", "expression": "x" * 500 + str(n)}), f"f:{n}", n, Path()
            )
            yield BadRequest(f"b{n}", None, None, None, {}, f"g:{n}", RowError("bad_row", "y" * 500))

    tracemalloc.start()
    report = DataCheck().run(rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.rows == 8000 and {problem.count for problem in report.problems.values()} == {4000}
    assert peak < 2 * 2**20


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    finished = CliRunner().invoke(app, ["data", "check", str(tmp_path / "empty.jsonl")])
    assert str(finished.exception) == f"{tmp_path}/empty.jsonl: there are no rows to check"


def test_predictions_name_what_reads_them(folder):
    row = Prediction(1, "a.png", "thing", "ok", (1, 2, 3, 4), ((1, 2, 3, 4),))
    (folder / "boxes.jsonl").write_bytes(row.to_json())
    _, report = check(folder / "boxes.jsonl")
    (problem,) = report["problems"]
    assert "`score` and `data export` read it" in problem["message"]
