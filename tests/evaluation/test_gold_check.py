"""Gold files that follow another box format than the predictions: said, and never silent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.evaluation.gold_check import GoldCheck
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks import read_predictions

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from deeplayer_cli.boxes import Box

BOXES: list[Box] = [(10, 20, 60, 70), (5, 5, 30, 90), (50, 40, 95, 60)]


def prediction(row_id: int | str, box: Box, gold: Box | None = None) -> Prediction:
    return Prediction(row_id, "a.jpg", "dog", "ok", box, (box,), gold=gold, width=100, height=100)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"".join(prediction(n, box).to_json() for n, box in enumerate(BOXES)))
    return path


def score(predictions: Path, rows: list[object], *options: str) -> Result:
    gold = predictions.with_name("gold.jsonl")
    gold.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return CliRunner().invoke(app, ["score", str(predictions), "--gold", str(gold), *options])


def unit(box: Box) -> list[float]:
    return [number / 100 for number in box]


def test_gold_in_fractions_ends_it_and_names_the_option(predictions: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"id": n, "box": unit(box)} for n, box in enumerate(BOXES)]
    finished = score(predictions, rows)
    said = str(finished.exception)
    assert "gold.jsonl: 3 of 3 gold boxes cannot be [x1, y1, x2, y2] in pixels, and 3 can be unit" in said
    assert "give --box-format unit, or --box-format xyxy if they are right" in said
    finished = score(predictions, rows, "--box-format", "unit")
    assert finished.exit_code == 0 and caplog.messages == [] and "100.0%" in finished.stdout


@pytest.mark.parametrize("wrong", ["unit", "per-mille"])
def test_a_format_that_the_rows_own_boxes_cannot_be_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """A run has converted them to pixels: they are not what the requests had."""
    path = tmp_path / "p.jsonl"
    boxes = [(10.0, 20.0, 60.0, 1070.0), (5.0, 5.0, 30.0, 1090.0), (50.0, 40.0, 95.0, 1060.0)]
    rows = [
        Prediction(n, "a.jpg", "x", "ok", box, (box,), gold=box, width=100, height=2000) for n, box in enumerate(boxes)
    ]
    path.write_bytes(b"".join(row.to_json() for row in rows))
    finished = CliRunner().invoke(app, ["score", str(path), "--box-format", wrong])
    assert finished.exit_code == 0 and "0.0%" in finished.stdout
    (said,) = caplog.messages
    assert said.startswith("3 of 3 gold boxes cannot be") and "give --box-format xyxy" in said
    caplog.clear()
    assert "100.0%" in CliRunner().invoke(app, ["score", str(path), "--box-format", "xyxy"]).stdout
    assert caplog.messages == []


def test_gold_with_width_and_height_ends_it_and_names_the_option(predictions: Path) -> None:
    rows = [{"id": n, "box": [x1, y1, x2 - x1, y2 - y1], "width": 100, "height": 100}
            for n, (x1, y1, x2, y2) in enumerate([(60, 60, 90, 90), (50, 10, 70, 90), (70, 20, 99, 60)])]  # fmt: skip
    assert "3 can be xywh: give --box-format xywh" in str(score(predictions, rows).exception)
    assert score(predictions, rows, "--box-format", "xywh").exit_code == 0


def test_the_rows_own_gold_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.jsonl"
    rows = [prediction(n, box, (box[0], box[1], box[2] - box[0], box[3] - box[1])) for n, box in enumerate(BOXES)]
    path.write_bytes(b"".join(row.to_json() for row in rows))
    finished = CliRunner().invoke(app, ["score", str(path), "--box-format", "xywh"])
    assert finished.exit_code == 0 and "100.0%" in finished.stdout and caplog.messages == []
    path.write_bytes(b"".join(prediction(n, box, tuple(unit(box))).to_json() for n, box in enumerate(BOXES)))
    assert CliRunner().invoke(app, ["score", str(path)]).exit_code == 0
    (said,) = caplog.messages
    assert "give --box-format unit" in said


def test_boxes_with_width_and_height() -> None:
    small: list[Box] = [(40, 40, 90, 90), (10, 10, 25, 30), (30, 20, 70, 45)]
    check = GoldCheck()
    for x1, y1, x2, y2 in small:
        gold = (x1, y1, x2 - x1, y2 - y1)
        check.add(prediction(1, (x1, y1, x2, y2)), gold, (x1, y1, x2, y2))
    (said,) = check.warnings()
    assert said.startswith("3 of 3 gold boxes fit the predictions better as [x, y, width, height]")


def test_a_poor_model_is_no_wrong_box_format() -> None:
    """Read with width and height, a box is larger, so poor boxes meet it more often; but it leaves the image."""
    check = GoldCheck()
    for gold in BOXES:
        check.add(prediction(1, (0, 0, 100, 100)), gold, (0, 0, 100, 100))
    assert check.warnings() == []


def test_predictions_without_any_gold_box_are_told_of_gold(predictions: Path) -> None:
    without = CliRunner().invoke(app, ["score", str(predictions)]).stdout
    assert "3 rows without a gold box: not counted. --gold FILE joins" in " ".join(without.split())
    joined = score(predictions, [{"id": 0, "box": BOXES[0]}]).stdout
    assert "2 rows without a gold box: not counted." in " ".join(joined.split()) and "--gold FILE" not in joined


@pytest.mark.parametrize("change", [str, lambda n: f"{n}.0", lambda n: f"0{n}"])
def test_ids_of_another_type_are_counted(predictions: Path, caplog: pytest.LogCaptureFixture, change) -> None:
    rows = [{"id": change(n) if n else n, "box": box} for n, box in enumerate(BOXES)]
    finished = score(predictions, rows)
    assert finished.exit_code == 0 and "1 of 3 predictions with a gold box" in finished.stdout
    (said,) = caplog.messages
    assert "2 predictions without a gold box only because their ids are written otherwise" in said


def test_other_ids_are_no_other_type(predictions: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert score(predictions, [{"id": "a", "box": BOXES[0]}, {"id": 0, "box": BOXES[0]}]).exit_code == 0
    assert caplog.messages == []


def test_gold_rows_without_a_box_are_counted(predictions: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"id": 0, "box": BOXES[0]}, {"id": 1, "box": None}, {"id": 2}]
    finished = score(predictions, rows)
    assert finished.exit_code == 0 and "1 of 3 predictions with a gold box" in finished.stdout
    assert caplog.messages == [f"{predictions.with_name('gold.jsonl')}: left out without a box: 2 of 3 rows"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 0.0, "box": [0, 0, 10, 10]}, "gold.jsonl:1: id must be a string or a 64-bit integer, not 0.0"),
        ({"id": 0, "box": [50, 50, 10, 10]}, "gold.jsonl:1: box must be"),
        ({"id": 0, "image": 5, "expression": 7, "box": [0, 0, 10]}, "gold.jsonl:1: box must be"),
        ({"id": 0}, "no row of 1 has a box"),
    ],
)
def test_gold_that_cannot_be_used_is_refused(predictions: Path, row: object, reason: str) -> None:
    assert reason in str(score(predictions, [row]).exception)


def test_a_byte_order_mark_and_a_torn_last_line(predictions: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = predictions.read_bytes()
    predictions.write_bytes(b"\xef\xbb\xbf" + whole)
    assert len(list(read_predictions(predictions))) == 3 and caplog.messages == []
    predictions.write_bytes(whole[:-20])
    shown = CliRunner().invoke(app, ["score", str(predictions)])
    assert shown.exit_code == 0
    assert caplog.messages == [f"{predictions}:3 is a torn line, as a killed run leaves it; it is left out"]
    predictions.write_bytes(whole[:-1])
    assert len(list(read_predictions(predictions))) == 3, "a whole last line needs no newline"
