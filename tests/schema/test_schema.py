from __future__ import annotations

import gzip
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deeplayer_cli.errors import RowError
from deeplayer_cli.schema import (
    MAX_ROW_BYTES,
    BadRequest,
    GoldReader,
    Prediction,
    Request,
    TileLayout,
    check_gold,
    check_resolution,
    overlap,
    parse_request,
)
from deeplayer_cli.schema.values import json_fault

ROOT = Path("/photos")
ROW = {"image": "a.jpg", "expression": "the dog"}

# The order is the contract: design and documentation show it, and tools that cut columns rely on it.
KEYS = [
    "id", "image", "expression", "status", "box", "boxes", "score", "gold", "iou", "answer", "width", "height",
    "visual_tokens", "kept_tokens", "method", "layer", "image_id", "source", "meta",
]  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["id", "image", "expression", "sent", "box", "bbox", "width", "height", "meta", "other"])


def parse(raw: object) -> Request | BadRequest:
    return parse_request(raw, "f.jsonl:1", "f.jsonl:1", ROOT)  # type: ignore[arg-type]


def asked(raw: object) -> Request:
    request = parse(raw)
    assert isinstance(request, Request), request
    return request


def refused(raw: object) -> RowError:
    request = parse(raw)
    assert isinstance(request, BadRequest), request
    return request.error


def test_plain_row() -> None:
    assert asked(b'{"image": "a.jpg", "expression": "the dog"}') == Request(
        "f.jsonl:1", "a.jpg", ROOT / "a.jpg", "the dog", None, {}, "f.jsonl:1", None
    )


def test_internvl_row() -> None:
    raw = b'{"image": "a.jpg", "sent": "the dog", "bbox": [1, 2, 3.5, 4], "width": 640, "height": 480, "split": "val"}'
    request = asked(raw)
    assert (request.expression, request.gold, request.resolution_wh) == ("the dog", (1.0, 2.0, 3.5, 4.0), (640, 480))
    assert request.meta == {"split": "val"}


@pytest.mark.parametrize("row_id", [7, "seven", "7", -(2**63), "ключ 🐕 שלום", ""])
def test_ids_keep_their_type(row_id: object) -> None:
    assert asked(ROW | {"id": row_id}).id == row_id


def test_other_fields_are_untouched() -> None:
    other = {"split": "val", "deep": {"a": [1, None, "ü"]}, "big": 2**53 + 1}
    assert asked(ROW | other).meta == other
    assert asked(ROW | {"split": "val", "meta": {"split": "test", "n": 1}}).meta == {"split": "test", "n": 1}
    assert asked(ROW | {"meta": "text"}).meta == {"meta": "text"}


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 123456789012345678901234567890])
@pytest.mark.parametrize("as_line", [True, False])
def test_integers_keep_their_value_or_fail_their_row(number: int, as_line: bool) -> None:
    row = ROW | {"box": [0, 0, 1, 1], "split": "val", "hashes": {"p": [1, number]}}
    bad = parse(json.dumps(row).encode() if as_line else row)
    assert isinstance(bad, BadRequest) and bad.error.kind == "bad_number"
    assert "hashes.p.1 is an integer of more than 64 bits" in bad.error.message and "as a string" in bad.error.message
    assert (bad.image, bad.expression, bad.gold, bad.meta) == ("a.jpg", "the dog", (0, 0, 1, 1), {"split": "val"})
    for name, kind in (("id", "bad_id"), ("box", "bad_box")):
        value: object = number if name == "id" else [0, 0, 1, number]
        line = ROW | {name: value}
        assert refused(json.dumps(line).encode() if as_line else line).kind == kind


def test_an_integer_that_python_refuses_to_read_fails_its_row() -> None:
    assert refused(b'{"image": "a.jpg", "expression": "dog", "n": ' + b"1" * 5000 + b"}").kind == "bad_json"


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**63, 2**53 + 1, 12345678901234567890.5, 1e300])
def test_numbers_of_64_bits_are_written_as_they_came(number: float) -> None:
    request = asked(json.dumps(ROW | {"n": number, "s": "1" * 30}).encode())
    written = json.loads(Prediction.answered(request, "", (1, 1)).to_json())["meta"]
    assert written == {"n": number, "s": "1" * 30} and type(written["n"]) is type(number)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"image": Path("a.jpg")}, {"image": "a.jpg"}),
        ({"image": np.str_("a.jpg")}, {"image": "a.jpg"}),
        ({"id": np.int64(7)}, {"id": 7}),
        ({"id": np.str_("x")}, {"id": "x"}),
        ({"box": np.array([1.0, 2, 3, 4])}, {"box": [1, 2, 3, 4]}),
        ({"box": tuple(np.float32([1, 2, 3, 4]))}, {"box": [1, 2, 3, 4]}),
        ({"width": np.int32(4), "height": np.uint8(5)}, {"width": 4, "height": 5}),
        ({"tags": [np.float64(0.5), np.bool_(True), Path("x")]}, {"tags": [0.5, True, "x"]}),
    ],
)
def test_what_python_programs_have_is_read(given: dict[str, object], meant: dict[str, object]) -> None:
    assert asked(ROW | given) == asked(ROW | meant)


def test_a_row_that_cannot_be_read_keeps_its_id() -> None:
    row = parse_request(ROW | {"id": "a1", "score": math.nan}, "rows:3", 3, Path())
    assert isinstance(row, BadRequest) and row.error.kind == "bad_json" and row.id == "a1"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"image": np.zeros((2000, 2000, 3), np.uint8)}, "bad_image"),
        ({"image": Image.new("RGB", (4, 4))}, "bad_image"),
        ({"image": b"a.jpg"}, "bad_json"),
        ({"box": np.array([1.0, np.nan, 3, 4])}, "bad_json"),
        ({"box": np.zeros((2, 4))}, "bad_box"),
        ({"tags": {"a"}}, "bad_json"),
    ],
)
def test_what_no_row_can_hold_is_one_sentence(given: dict[str, object], kind: str) -> None:
    error = refused(ROW | given)
    assert error.kind == kind and len(error.message) < 300 and "\n" not in error.message


def test_a_decimal_comma_is_named() -> None:
    error = refused(ROW | {"box": ["1,5", "2", "30", "40"]})
    assert error.kind == "bad_box" and error.message.endswith(": write numbers with a point, not with a comma")
    assert "comma" not in refused(ROW | {"box": ["1.5", "2", "30", "40"]}).message


def test_null_means_absent() -> None:
    row = ROW | dict.fromkeys(["id", "box", "width", "height", "meta"])
    assert asked(row) == asked(ROW)
    assert asked({"image": "a.jpg", "expression": None, "sent": "dog", "box": None, "bbox": [0, 0, 1, 1]}).gold


def test_absolute_paths_stay() -> None:
    assert asked(ROW | {"image": "/else/a b\nc.jpg"}).path == Path("/else/a b\nc.jpg")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b'{"image": "a.jpg", "expression": "\\ud800"}', "bad_json"),
        (b'{"image": "a.jpg", "expression": "\xff"}', "bad_json"),
        (b'{"image": "a.jpg", "expression": "dog", "box": [0, 0, NaN, 1]}', "bad_json"),
        (b"\0" * 100, "bad_json"),
        (b"[" * 10_000, "bad_json"),
        (b'{"image": "a.jpg", "expression": "dog", "meta": ' + b"[" * 300 + b"]" * 300 + b"}", "bad_json"),
        ({"image": "a.jpg", "expression": "\ud800"}, "bad_json"),
        (ROW | {"score": math.nan}, "bad_json"),
        (ROW | {"when": object()}, "bad_json"),
        (b'{"image": "' + b"a" * MAX_ROW_BYTES + b'"}', "row_too_long"),
        (b"[]", "bad_row"),
        (b"3", "bad_row"),
        (b"null", "bad_row"),
        (ROW | {"status": "ok", "answer": "", "gold": None}, "bad_row"),
        (ROW | {"id": 1.5}, "bad_id"),
        (ROW | {"id": True}, "bad_id"),
        (ROW | {"id": ["a"]}, "bad_id"),
        (ROW | {"id": 2**70}, "bad_id"),
        ({"expression": "dog"}, "bad_image"),
        (ROW | {"image": ""}, "bad_image"),
        (ROW | {"image": 3}, "bad_image"),
        (ROW | {"image": "a\0b"}, "bad_image"),
        (ROW | {"image": "https://example.org/a.jpg"}, "image_url"),
        (ROW | {"image": "data:image/png;base64,AAAA"}, "image_url"),
        ({"image": "a.jpg"}, "bad_expression"),
        (ROW | {"expression": ""}, "bad_expression"),
        (ROW | {"expression": " \n\u3000"}, "bad_expression"),
        (ROW | {"expression": ["dog"]}, "bad_expression"),
        (ROW | {"box": [1, 2, 3]}, "bad_box"),
        (ROW | {"box": [1, 2, 3, 4, 5]}, "bad_box"),
        (ROW | {"box": "1234"}, "bad_box"),
        (ROW | {"box": {}}, "bad_box"),
        (ROW | {"box": [1, 2, "3", 4]}, "bad_box"),
        (ROW | {"box": [0, 0, True, True]}, "bad_box"),
        (ROW | {"box": [3, 2, 3, 4]}, "bad_box"),
        (ROW | {"box": [5, 2, 3, 4]}, "bad_box"),
        (ROW | {"width": 640}, "bad_size"),
        (ROW | {"width": "640", "height": 480}, "bad_size"),
        (ROW | {"width": 0, "height": 480}, "bad_size"),
    ],
)
def test_bad_rows(raw: object, kind: str) -> None:
    error = refused(raw)
    assert error.kind == kind
    assert error.message.startswith("f.jsonl:1: ")
    assert len(error.message) < 300 and "\n" not in error.message


@pytest.mark.parametrize("names", [("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax")])
@pytest.mark.parametrize("place", [lambda corners: corners, lambda corners: {"meta": corners}])
@pytest.mark.parametrize("written", [float, str])
def test_two_boxes_of_a_row_must_agree(names: tuple[str, ...], place: Any, written: Any) -> None:
    def corners(*numbers: float) -> dict[str, object]:
        return dict(zip(names, map(written, numbers), strict=True))

    row = ROW | {"box": [10, 20, 30, 40]}
    same = corners(10.4, 20, 30, 39.5)
    assert asked(row | place(same)).gold == (10, 20, 30, 40) and asked(row | place(same)).meta == same
    other = corners(10, 20, 20, 20)
    error = refused(row | place(other))
    shown = str(list(other.values())).replace("'", '"')
    assert error.kind == "bad_box"
    assert error.message == (
        f"f.jsonl:1: box is [10.0, 20.0, 30.0, 40.0] in pixels, but {', '.join(names)} are {shown}: remove one of the "
        "two, or say with --box-format how box is written"
    )


@pytest.mark.parametrize("names", [("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax")])
def test_four_fields_are_the_box_of_a_row_without_one(names: tuple[str, ...]) -> None:
    corners = dict(zip(names, [10, 20, 30, 40], strict=True))
    row = asked(ROW | {"box": None, "note": "kept"} | corners)
    assert row.gold == (10, 20, 30, 40) and row.meta == {"note": "kept"}
    assert asked(ROW | dict.fromkeys(names)).gold is None and asked(ROW | dict.fromkeys(names, "")).gold is None
    error = refused(ROW | corners | {names[2]: None})
    assert error.message == "f.jsonl:1: box must be four finite numbers [x1, y1, x2, y2], not [10, 20, null, 40]"
    thousandths = parse_request(
        ROW | corners | {"width": 100, "height": 200}, "f:1", "f:1", ROOT, gold_reader=GoldReader("per-mille")
    )
    assert thousandths.gold == (1, 4, 3, 8)


def test_box_and_bbox_must_agree() -> None:
    row = ROW | {"box": [10, 20, 30, 40]}
    assert asked(row | {"bbox": [10.4, 20, 30, 39.5]}).gold == asked(row | {"bbox": None}).gold == (10, 20, 30, 40)
    for other in ([10, 20, 20, 20], [10, 20, 31.5, 40], "none"):
        error = refused(row | {"bbox": other})
        shown = str(other) if isinstance(other, list) else '"none"'
        assert (error.kind, error.message) == (
            "bad_box",
            f"f.jsonl:1: box is [10.0, 20.0, 30.0, 40.0], but bbox is {shown}: remove one of the two",
        )


def test_fields_of_other_things_are_no_second_box() -> None:
    for other in ({"x": 1, "y": 2, "w": 640, "h": 480}, {"x1": 1, "y1": 2}, dict.fromkeys(("x1", "y1", "x2", "y2"))):
        assert asked(ROW | {"box": [10, 20, 30, 40]} | other).meta == other
    row = ROW | {"box": [10, 20, 20, 20], "x1": 10, "y1": 20, "x2": 30, "y2": 40}
    assert isinstance(refused(row), RowError)
    as_xywh = parse_request(row, "f.jsonl:1", "f.jsonl:1", ROOT, gold_reader=GoldReader("xywh"))
    assert isinstance(as_xywh, Request) and as_xywh.gold == (10, 20, 30, 40)


def test_a_bad_row_keeps_what_can_be_read() -> None:
    bad = parse({"id": 3, "image": "a.jpg", "expression": " ", "box": [0, 0, 1, 1], "split": "val"})
    assert isinstance(bad, BadRequest)
    assert (bad.id, bad.image, bad.expression, bad.gold, bad.meta) == (3, "a.jpg", None, (0, 0, 1, 1), {"split": "val"})
    prediction = Prediction.failed(bad, bad.error, method="none")
    assert (prediction.id, prediction.iou, prediction.status) == (3, 0.0, "error")


@given(st.binary() | st.dictionaries(names, json_values) | st.dictionaries(names, json_values).map(orjson.dumps))
def test_any_row_becomes_one_line(raw: object) -> None:
    request = parse(raw)
    error = request.error if isinstance(request, BadRequest) else RowError("later", "went wrong later")
    line = Prediction.failed(request, error).to_json()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert Prediction.from_json(line).id == request.id


def test_gold_outside_the_image() -> None:
    for inside in [(0, 0, 640, 480), (-0.5, -0.5, 640.3, 480.3), (-100, 10, 20, 600), (639, 479, 700, 500)]:
        check_gold(inside, (640, 480))
    for outside in [(640, 0, 700, 10), (0, 480, 10, 500), (-20, 0, 0, 10), (0, -20, 10, -1)]:
        with pytest.raises(RowError, match="640 x 480"):
            check_gold(outside, (640, 480))


def test_stated_and_stored_size() -> None:
    check_resolution(None, (640, 480))
    check_resolution((640, 480), (640, 480))
    with pytest.raises(RowError, match=r"480 x 640 .* 640 x 480"):
        check_resolution((480, 640), (640, 480))


def test_an_answer_becomes_a_prediction() -> None:
    request = asked(ROW | {"id": 1, "box": [64, 96, 320, 384], "split": "val"})
    row = Prediction.answered(
        request, "the dog[[100, 200, 500, 800]]", (640, 480), score=0.5, visual_tokens=1280, kept_tokens=128,
        method="deep-layer", layer=12,
    )  # fmt: skip
    assert json.loads(row.to_json()) == {
        "id": 1, "image": "a.jpg", "expression": "the dog", "status": "ok", "box": [64.0, 96.0, 320.0, 384.0],
        "boxes": [[64.0, 96.0, 320.0, 384.0]], "score": 0.5, "gold": [64.0, 96.0, 320.0, 384.0], "iou": 1.0,
        "answer": "the dog[[100, 200, 500, 800]]", "width": 640, "height": 480, "visual_tokens": 1280,
        "kept_tokens": 128, "method": "deep-layer", "layer": 12, "image_id": None, "source": "f.jsonl:1",
        "meta": {"split": "val"},
    }  # fmt: skip
    assert Prediction.from_json(row.to_json()) == row


@pytest.mark.parametrize("answer", ["", "I see no dog", "[[nan, 1, 2, 3]]"])
def test_an_answer_without_a_box_counts_as_wrong(answer: str) -> None:
    row = Prediction.answered(asked(ROW | {"box": [0, 0, 1, 1]}), answer, (640, 480))
    assert (row.status, row.box, row.boxes, row.iou, row.answer) == ("no_box", None, (), 0.0, answer)
    assert Prediction.answered(asked(ROW), answer, (640, 480)).iou is None


def test_key_order() -> None:
    row = Prediction.answered(asked(ROW), "", (1, 1))
    assert list(json.loads(row.to_json())) == KEYS
    failed = Prediction.failed(asked(ROW), RowError("image_missing", "a.jpg does not exist"))
    assert list(json.loads(failed.to_json())) == [*KEYS, "error"]
    assert json.loads(failed.to_json())["error"] == {"type": "image_missing", "message": "a.jpg does not exist"}
    kept = replace(row, kept=[0, 5], tiles=TileLayout(2, 1, True, 4))
    assert list(json.loads(kept.to_json())) == [*KEYS, "kept", "tiles"]
    assert Prediction.from_json(kept.to_json()) == kept
    optional = ["error", "kept", "tiles", "fallback", "share", "positions"]
    assert [item.name for item in fields(Prediction)] == [*KEYS, *optional]


@pytest.mark.parametrize(
    "spoil", [{"score": math.nan}, {"box": (0.0, math.inf, 1.0, 1.0)}, {"meta": {"a": [math.nan]}}]
)
def test_no_number_that_is_not_finite_reaches_a_file(spoil: dict[str, object]) -> None:
    row = Prediction(1, "a.jpg", "dog", "ok", gold=(0, 0, 1, 1), **spoil)  # type: ignore[arg-type]
    written = json.loads(row.to_json(), parse_constant=pytest.fail)
    assert (written["status"], written["iou"], written["box"]) == ("error", 0.0, None)
    assert written["error"]["type"] == "not_finite"
    assert written["error"]["message"].startswith(next(iter(spoil)))


def test_a_message_may_quote_any_path() -> None:
    failed = Prediction.failed(asked(ROW), RowError("image_missing", "\udcff.jpg does not exist"))
    assert rb"\\xff.jpg" in failed.to_json()


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b"{}", b'{"id": 1}', b'{"id": 1.5, "status": "ok"}', b'{"id": 1, "status": "fine"}',
        b'{"id": 1, "status": "ok", "box": [1, 2, 3]}', b'{"id": 1, "status": "ok", "boxes": {"a": 1}}',
        b'{"id": 1, "status": "ok", "boxes": [[1]]}', b'{"id": 1, "status": "ok", "meta": []}',
        b'{"id": 1, "status": "ok", "tiles": {"columns": 1}}', b'{"id": 1, "status": "ok", "kept": [true]}',
    ],
)  # fmt: skip
def test_lines_that_are_no_predictions(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Prediction.from_json(line)


def test_a_compressed_file_is_named() -> None:
    line = gzip.compress(b"{}", mtime=0)[:10] + b"\xff"
    assert json_fault(line, ValueError("parser")) == "it is compressed by gzip: unpack the file first"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_lacks_is_named(number: str) -> None:
    line = b'{"id": 1, "status": "ok", "meta": {"NaN": "NaN"}, "score": %b}' % number.encode()
    with pytest.raises(ValueError, match=r"."):
        Prediction.from_json(line)
    fault = "score is infinite or not a number, and JSON has no such numbers: write null"
    assert json_fault(line, ValueError("parser")) == fault


def test_a_row_of_several_lines_is_told_to_be_one() -> None:
    assert refused(b'{"image": "a.jpg",\n').message.endswith("; a row is one line")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("score", '"0.9"', 'score must be a number, not "0.9"'),
        ("score", "true", "score must be a number, not true"),
        ("iou", "1.5", "iou must be from 0 to 1, not 1.5"),
        ("iou", "-0.2", "iou must be from 0 to 1, not -0.2"),
    ],
)
def test_scores_that_are_none_are_refused(field: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        Prediction.from_json(f'{{"id": 1, "status": "ok", "{field}": {value}}}'.encode())


@pytest.mark.parametrize("score", [-7.5, -0.2, 1.5, 40, None])
def test_a_score_on_another_scale_is_read_as_it_is(score: float | None) -> None:
    """Other programs write logits: only their order counts, in the AUC and where rows are sorted."""
    assert Prediction.from_json(orjson.dumps({"id": 1, "status": "ok", "score": score, "iou": 1})).score == score


@pytest.mark.parametrize("given", [{"box": [1, 2, 30, 40]}, {"boxes": [[1, 2, 30, 40]]}, {"boxes": [], "box": None}])
def test_a_prediction_with_one_of_box_and_boxes_has_both(given: dict[str, object]) -> None:
    read = Prediction.from_json(orjson.dumps({"id": 1, "status": "ok"} | given))
    box = None if given.get("boxes") == [] else (1, 2, 30, 40)
    assert read.box == box and read.boxes == (() if box is None else (box,))


@pytest.mark.parametrize("status", ["no_box", "error"])
@pytest.mark.parametrize("given", [{"box": [1, 2, 30, 40]}, {"boxes": [[1, 2, 30, 40]]}])
def test_a_row_without_a_box_has_none(status: str, given: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match=rf"^status is {status}, but the row has a box: make it ok, or remove the box$"
    ):
        Prediction.from_json(orjson.dumps({"id": 1, "status": status} | given))


def test_a_request_in_place_of_a_prediction_is_told_what_answers_it() -> None:
    with pytest.raises(ValueError, match=r"^a prediction is .* id and status; this is a request, which `deeplayer gr"):
        Prediction.from_json(orjson.dumps(ROW | {"id": 1}))
    with pytest.raises(ValueError, match=r"^a prediction is an object with id and status$"):
        Prediction.from_json(b'{"id": 1}')


SIDES = st.integers(1, 5000)
PER_MILLE = st.tuples(*[st.integers(0, 1000)] * 4)


@given(PER_MILLE, SIDES, SIDES, PER_MILLE)
def test_boxes_are_written_with_two_decimals_and_read_with_all(
    answer: tuple[int, ...], width: int, height: int, gold: tuple[int, ...]
) -> None:
    x1, y1, x2, y2 = gold
    box = (min(x1, x2) * 0.1, min(y1, y2) * 0.1, max(x1, x2) * 0.1 + 1, max(y1, y2) * 0.1 + 1)
    request = Request("a", "a.png", Path("a.png"), "the dog [1]", box, {}, "a:1", None)
    row = Prediction.answered(request, f"the dog [1][[{', '.join(map(str, answer))}]]", (width, height))
    line = row.to_json()
    written = orjson.loads(line)
    assert written["box"] == written["boxes"][0] == [round(number, 2) for number in row.box or ()]
    again = Prediction.from_json(line)
    assert again == row and again.to_json() == line
    assert overlap(again.box, again.gold) == row.iou == written["iou"]


def test_boxes_that_somebody_has_changed_stay_as_they_are() -> None:
    request = Request("a", "a.png", Path("a.png"), "dog", None, {}, "a:1", None)
    row = orjson.loads(Prediction.answered(request, "dog[[101, 202, 303, 404]]", (123, 457)).to_json())
    assert Prediction.from_json(orjson.dumps(row)).box != tuple(row["box"])
    for change in ({"box": [1.0, 2.0, 3.0, 4.0]}, {"answer": None}, {"width": 124}, {"boxes": []}):
        changed = row | change
        assert Prediction.from_json(orjson.dumps(changed)).box == tuple(changed["box"])
