"""How gold boxes are written: converted where somebody says so, doubted where the numbers speak against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.boxes import BOX_FORMATS, RELATIVE_FORMATS, Box, BoxFormat, to_xyxy
from deeplayer_cli.errors import RowError
from deeplayer_cli.schema import BadRequest, BoxFormatCheck, GoldReader, Request, WrittenGold, parse_request

SIZE = (200, 100)
BOX = (20.0, 10.0, 60.0, 50.0)
WRITTEN: dict[BoxFormat, Box] = {
    "xyxy": BOX,
    "xywh": (20, 10, 40, 40),
    "cxcywh": (40, 30, 40, 40),
    "per-mille": (100, 100, 300, 500),
    "unit": (0.1, 0.1, 0.3, 0.5),
}

boxes = st.tuples(st.floats(0, 150), st.floats(0, 70), st.floats(2, 50), st.floats(2, 30)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


def written_as(box: Box, box_format: BoxFormat) -> Box:
    x1, y1, x2, y2 = box
    if box_format == "xywh":
        return x1, y1, x2 - x1, y2 - y1
    if box_format == "cxcywh":
        return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    whole = {"per-mille": 1000, "unit": 1}.get(box_format)
    return box if whole is None else (x1 / 200 * whole, y1 / 100 * whole, x2 / 200 * whole, y2 / 100 * whole)


@pytest.mark.parametrize("box_format", BOX_FORMATS)
def test_every_format_reads_the_same_box(box_format: BoxFormat) -> None:
    assert to_xyxy(WRITTEN[box_format], box_format, SIZE) == pytest.approx(BOX)
    reader = GoldReader(box_format, lambda path: SIZE)
    assert reader.read(WrittenGold(WRITTEN[box_format], None, Path("a.jpg"))) == pytest.approx(BOX)
    row = {"image": "a.jpg", "expression": "x", "box": WRITTEN[box_format], "width": 200, "height": 100}
    read = parse_request(row, "f:1", "f:1", Path(), gold_reader=GoldReader(box_format))
    assert isinstance(read, Request) and read.gold == pytest.approx(BOX)


@given(boxes, st.sampled_from(BOX_FORMATS))
def test_what_is_written_comes_back(box: Box, box_format: BoxFormat) -> None:
    assert to_xyxy(written_as(box, box_format), box_format, SIZE) == pytest.approx(box)


@pytest.mark.parametrize("box_format", sorted(RELATIVE_FORMATS))
def test_relative_boxes_need_a_size(box_format: BoxFormat) -> None:
    with pytest.raises(ValueError, match="need the image's width and height"):
        to_xyxy(BOX, box_format)
    row = {"image": "a.jpg", "expression": "x", "box": WRITTEN[box_format]}
    bad = parse_request(row, "f:1", "f:1", Path(), gold_reader=GoldReader(box_format))
    assert isinstance(bad, BadRequest) and bad.error.kind == "box_without_size" and "f:1" in bad.error.message

    def gone(path: Path) -> tuple[int, int]:
        raise RowError("image_missing", f"{path} does not exist")

    bad = parse_request(row, "f:1", "f:1", Path(), gold_reader=GoldReader(box_format, gone))
    assert isinstance(bad, BadRequest) and "its box needs the image's size: a.jpg does not exist" in bad.error.message


@pytest.mark.parametrize(
    ("box_format", "numbers"), [("xyxy", (9, 1, 3, 4)), ("xywh", (1, 1, 0, 4)), ("unit", (0.5, 0.5, 0.4, 0.9))]
)
def test_no_box(box_format: BoxFormat, numbers: Box) -> None:
    with pytest.raises(RowError, match="box must be") as caught:
        GoldReader(box_format).read(WrittenGold(numbers, SIZE, None))
    assert "--box-format" not in str(caught.value)
    if box_format == "xyxy":
        with pytest.raises(RowError, match="--box-format reads boxes that are written otherwise"):
            GoldReader().read(WrittenGold(numbers, SIZE, None))


def doubt(rows: list[Box], size: tuple[int, int] | None = SIZE) -> str | None:
    check = BoxFormatCheck()
    for numbers in rows:
        check.add(numbers, size)
    return check.doubt()


@given(st.lists(boxes, min_size=1, max_size=40))
def test_boxes_in_pixels_are_not_doubted(rows: list[Box]) -> None:
    assert doubt(rows) is None and doubt(rows, None) is None


@given(st.lists(boxes, min_size=1, max_size=40))
def test_boxes_in_fractions_are_always_doubted(rows: list[Box]) -> None:
    said = doubt([written_as(box, "unit") for box in rows], None)
    assert said is not None and "give --box-format unit, or --box-format xyxy if they are right" in said


def test_each_other_format_is_named() -> None:
    right: list[Box] = [(110, 55, 190, 95), (120, 60, 150, 90), (105, 70, 195, 99), (2, 2, 190, 90)]
    for box_format in ("xywh", "cxcywh", "per-mille"):
        said = doubt([written_as(box, box_format) for box in right])
        assert said is not None and f"--box-format {box_format}" in said, box_format
    said = doubt([written_as(box, "xywh") for box in right], None)
    assert said is not None and "3 of 4" in said and "xywh or cxcywh" in said, "without sizes it could be either"


def test_a_few_wrong_boxes_are_wrong_rows() -> None:
    assert doubt([(9, 9, 3, 3)]) is None, "one box"
    assert doubt([BOX] * 20 + [(90, 9, 3, 3)] * 3) is None, "some of many"
    assert doubt([(0, 0, 1, 1)]) is None, "a box of one pixel"
