"""A row as a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from deeplayer_cli.report.box_drawing import on_picture
from deeplayer_cli.report.caption import FURTHER, GOLD, PREDICTED, caption_of
from deeplayer_cli.report.colours import heat_colours
from deeplayer_cli.report.lettering import Lettering
from deeplayer_cli.report.overlay import draw_row, drawing_size
from deeplayer_cli.report.tokens import Heat
from deeplayer_cli.schema import Prediction, TileLayout

LETTERING = Lettering()
GREY = (120, 120, 120)
ROW = Prediction(
    *("a", "a.png", "the dog", "ok"), box=(100, 100, 300, 200), boxes=((100, 100, 300, 200),), score=0.5,
    gold=(400, 300, 600, 400), iou=0.0, answer="", width=800, height=600,
)  # fmt: skip


def pixels(row: Prediction, size: tuple[int, int] = (800, 600), heat: Heat | None = None) -> np.ndarray:
    return np.asarray(draw_row(Image.new("RGB", size, GREY), row, LETTERING, heat))


def colours_of(picture: np.ndarray) -> set[tuple[int, ...]]:
    return set(Image.fromarray(picture).get_flattened_data())


def rgb(colour: str) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)


def test_boxes_are_where_the_row_says() -> None:
    picture = pixels(ROW)
    found = np.argwhere((picture[:600] == rgb(PREDICTED)).all(-1))
    assert (found.min(0) - (100, 100)).tolist() == [1, 1]  # behind the black rim
    assert (found.max(0) - (200, 300)).tolist() == [-1, -1]
    found = np.argwhere((picture[:600] == rgb(GOLD)).all(-1))
    assert (found.min(0) - (300, 400)).tolist() == [1, 1]
    assert tuple(picture[150, 200]) == GREY  # boxes are not filled
    assert tuple(picture[100, 120]) == (0, 0, 0)
    assert tuple(picture[-1, -1]) == (255, 255, 255)


def test_the_first_box_differs_from_the_others() -> None:
    several = replace(ROW, boxes=(*ROW.boxes, (10, 10, 50, 50), (500, 10, 700, 100)))
    assert rgb(FURTHER) in colours_of(pixels(several)[:600])
    assert rgb(FURTHER) not in colours_of(pixels(ROW)[:600])


def test_errors_and_answers_without_a_box_are_drawn_with_their_gold_box() -> None:
    no_box = replace(ROW, status="no_box", box=None, boxes=(), answer="I see no dog")
    failed = replace(no_box, status="error", error={"type": "prompt_too_long", "message": "m"}, width=None, height=None)
    for row in (no_box, failed):
        assert rgb(GOLD) in colours_of(pixels(row)[:600]) and rgb(PREDICTED) not in colours_of(pixels(row))


def test_what_the_text_says() -> None:
    def said(**changes: object) -> list[str]:
        return [line.text for line in caption_of(replace(ROW, **changes), None, dimmed=False)]

    assert said() == ["the dog", "answer, score 0.500", "gold, IoU 0.00", "a"]
    assert said(boxes=ROW.boxes * 3)[1] == "answer, score 0.500; the first of 3 boxes counts"
    assert said(boxes=((900, 0, 950, 9),), score=None)[1] == "answer; it lies outside of the image"
    assert said(expression=None, boxes=(), answer="a dog")[:2] == ["(no expression)", "no box in the answer: a dog"]
    assert said(error={"type": "bad_box", "message": "m"})[1] == "error bad_box: m"
    kept = {"method": "fastv", "layer": 2, "kept_tokens": 3, "visual_tokens": 9}
    assert said(**kept)[3] == "fastv, layer 2: 3 of 9 visual tokens kept"


LAYOUT = TileLayout(2, 1, True, 2)  # cells of 200 x 300 pixels, and four on the thumbnail


def test_dropped_tokens_are_dark() -> None:
    plain = replace(ROW, box=None, boxes=(), gold=None)
    picture = pixels(replace(plain, kept=[1, 6, 8], tiles=LAYOUT))
    dark = (54, 54, 54)
    centres = [[tuple(picture[y, x]) for x in (100, 300, 500, 700)] for y in (150, 450)]
    assert centres == [[dark, GREY, dark, dark], [dark, dark, GREY, dark]]
    assert tuple(picture[150, 199]) == (255, 255, 255)  # a line around what stays
    whole = pixels(replace(plain, kept=list(range(12)), tiles=LAYOUT))
    assert dark not in colours_of(whole[:600])
    inset = picture[610:, 560:]  # one of four tokens of the thumbnail stays
    assert (inset == GREY).all(-1).sum() * 3 == pytest.approx((inset == dark).all(-1).sum(), rel=0.15)
    with pytest.raises(ValueError, match="no visual token 12: the image has 12"):
        pixels(replace(plain, kept=[12], tiles=LAYOUT))


def test_heat_is_drawn_instead_of_kept_tokens() -> None:
    values = [0.0] * 12
    values[5] = 0.2
    picture = pixels(replace(ROW, boxes=(), gold=None, kept=[1], tiles=LAYOUT), heat=Heat(values, LAYOUT, "attention"))
    lowest, highest = (
        0.65 * colour + 0.35 * 120 for colour in heat_colours(np.array([0, 1], np.float32)).astype(float)
    )
    assert np.abs(picture[150, 700] - highest).max() <= 1 and np.abs(picture[150, 500] - lowest).max() <= 1


@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)).filter(lambda size: size[0] * size[1] < 200_000),
    boxes=st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 4), max_size=4),
    text=st.text(max_size=300),
)
@settings(max_examples=60, deadline=None)
def test_any_row_is_drawn(size: tuple[int, int], boxes: list, text: str) -> None:
    row = replace(ROW, id=text, expression=text, boxes=tuple(boxes), gold=boxes[0] if boxes else None)
    picture = pixels(row, size)
    wide, high = drawing_size(size)
    assert picture.shape[1] == max(480, wide) and picture.shape[0] > high
    assert (picture[:, -1][high:] == 255).all() and (picture[-1] == 255).all()  # no text leaves the picture
    for box in boxes:
        left, top, right, bottom = on_picture(box, size, (wide, high))
        assert 0 <= left <= right < wide and 0 <= top <= bottom < high


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        *(((640, 480), (640, 480)), ((20, 20), (640, 640)), ((6000, 4000), (1600, 1067)), ((1000, 900), (1000, 900))),
        *(((3000, 30), (4096, 41)), ((60_000, 1), (4096, 1)), ((1, 1), (640, 640))),
    ],
)
def test_sizes_to_look_at(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert drawing_size(size) == drawn
