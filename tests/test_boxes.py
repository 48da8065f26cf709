from __future__ import annotations

import json
import math
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.boxes import (
    ANSWER_RULES,
    Box,
    box_iou,
    centre_inside,
    clip_box,
    coordinate_spans,
    from_permille,
    parse_answer,
    to_permille,
)

if TYPE_CHECKING:
    from pathlib import Path

OFFICIAL_PATTERN = re.compile(r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*")
WH = (640, 480)

# Integers whose areas single precision holds exactly, so that scaling and moving change nothing at all.
side = st.integers(1, 2000)
corner = st.integers(-1000, 1000)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(corner), draw(corner)
    return float(x), float(y), float(x + draw(side)), float(y + draw(side))


def test_official_answers(reference_dir: Path) -> None:
    cases: list[dict[str, Any]] = json.loads((reference_dir / "eval_cases.json").read_bytes())["cases"]
    assert len(cases) == 184
    for case in cases:
        height, width = case["hw"]
        read = parse_answer(case["answer"], (width, height))
        pixels, iou = [float(number) for number in case["pred_pixels"]], float(case["iou"])
        # An answer that could not be read is the box 0, 0, 0, 0 there and no box here; so is one that is not finite.
        if all(math.isfinite(number) for number in pixels):
            assert list(read[0] if read else (0.0,) * 4) == pixels, case
        else:
            assert read == (), case
        ours = box_iou(read[0], tuple(case["gt_bbox"])) if read else 0.0
        assert ours == (0.0 if math.isnan(iou) else iou), case
        assert (ours >= 0.5) is case["correct"], case


@given(st.text(alphabet="[],\n 1x", max_size=40))
def test_official_pattern_without_backtracking_finds_the_same(answer: str) -> None:
    def readable(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    matches = OFFICIAL_PATTERN.findall(answer)
    expected = sum(all(map(readable, match)) for match in matches)
    first_is_readable = bool(matches) and all(map(readable, matches[0]))
    assert len(parse_answer(answer, WH)) == (expected if first_is_readable else 0)


def test_degenerate_answers_are_read_at_once() -> None:
    started = time.perf_counter()
    for answer in ("[" + "," * 3000, "[" * 3000, "[,,," * 500, "1" * 3000):
        for rule in ANSWER_RULES:
            parse_answer(answer, WH, rule)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("answer", "internvl", "strict", "vlmevalkit"),
    [
        ("dog[[100, 200, 500, 800]]", 1, 1, 1),
        ("[[100, 200, 500, 800], [0, 0, 1000, 1000]]", 2, 2, 2),
        ("no box", 0, 0, 0),
        ("", 0, 0, 0),
        ("[[500, 800, 100, 200]]", 1, 0, 1),
        ("[[100, 200, 500, 1800]]", 1, 0, 1),
        ("[[-100, 200, 500, 800]]", 1, 0, 1),
        ("[[100.5, 200, 500, 800]]", 1, 0, 1),
        ("[[100, 200, 500, 800", 0, 0, 1),
        ("(100,200),(500,800)", 0, 0, 1),
        ("[x] [[100, 200, 500, 800]]", 0, 0, 1),
        ("[[100, 200, 500, 800]] [[1, 2, 3, 4]]", 2, 0, 2),
        ("[[nan, 200, 500, 800]]", 0, 0, 0),
        ("[[1e999, 200, 500, 800]]", 0, 0, 1),
        ("[[١٠٠, 200, 500, 800]]", 1, 0, 1),
    ],
)
def test_rules_find_boxes(answer: str, internvl: int, strict: int, vlmevalkit: int) -> None:
    found = {rule: parse_answer(answer, WH, rule) for rule in ANSWER_RULES}
    assert {rule: len(read) for rule, read in found.items()} == {
        "internvl": internvl,
        "strict": strict,
        "vlmevalkit": vlmevalkit,
    }
    assert all(math.isfinite(number) for read in found.values() for box in read for number in box)


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        ("[[100, 200, 500, 800]]", (64, 96, 320, 384)),
        ("[0.1 0.2 0.5 0.8]", (64, 96, 320, 384)),
        ("from 100, 200 to 500, 800", (64, 96, 320, 384)),
        ("[500, 800, 100, 200]", (64, 96, 320, 384)),
        ("[100, 200, 500, 1800]", (100, 200, 500, 480)),
        ("[-100, 200, 500, 800]", (0, 96, 320, 384)),
    ],
)
def test_vlmevalkit_guesses_units_clips_and_swaps(answer: str, box: Box) -> None:
    (read,) = parse_answer(answer, WH, "vlmevalkit")
    assert read == pytest.approx(box)


@given(st.tuples(*[st.integers(0, 499)] * 2), st.tuples(*[st.integers(500, 1000)] * 2), st.integers(1, 5000))
def test_rules_agree_to_the_bit_on_what_the_model_was_trained_to_write(
    low: tuple[int, int], high: tuple[int, int], side: int
) -> None:
    answer = f"the dog[[{low[0]}, {low[1]}, {high[0]}, {high[1]}]]"
    assert parse_answer(answer, (side, 480), "strict") == parse_answer(answer, (side, 480), "internvl")


@given(st.text())
def test_any_text_can_be_read_by_any_rule(answer: str) -> None:
    for rule in ANSWER_RULES:
        assert all(math.isfinite(number) for box in parse_answer(answer, WH, rule) for number in box)


def test_coordinate_spans() -> None:
    answer = "dog[[ 10, 200,30 ,4]] [[1, 2, 3, 4]]"
    assert [answer[start:end] for start, end in coordinate_spans(answer)] == ["10", "200", "30", "4"]
    assert coordinate_spans("dog[[a, b, c, d]]") == coordinate_spans("dog") == []


@given(boxes(), boxes())
def test_iou_is_symmetric_and_a_share(a: Box, b: Box) -> None:
    assert box_iou(a, b) == box_iou(b, a)
    assert 0.0 <= box_iou(a, b) <= 1.0
    assert box_iou(a, a) == 1.0


@given(boxes(), boxes(), st.sampled_from([2.0, 4.0, 0.5]), corner, corner)
def test_iou_does_not_depend_on_scale_or_place(a: Box, b: Box, scale: float, dx: int, dy: int) -> None:
    def moved(box: Box) -> Box:
        return (box[0] + dx) * scale, (box[1] + dy) * scale, (box[2] + dx) * scale, (box[3] + dy) * scale

    assert box_iou(moved(a), moved(b)) == pytest.approx(box_iou(a, b), abs=1e-6)


@given(boxes(), boxes())
def test_iou_against_counting(a: Box, b: Box) -> None:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    assert box_iou(a, b) == pytest.approx(width * height / (sum(areas) - width * height), abs=1e-6)


@given(st.tuples(*[st.floats()] * 4), st.tuples(*[st.floats()] * 4))
def test_iou_of_anything_is_a_share(a: Box, b: Box) -> None:
    assert 0.0 <= box_iou(a, b) <= 1.0 + 1e-6


def test_iou_of_degenerate_boxes_is_zero() -> None:
    point, box, flipped = (10.0, 10.0, 10.0, 10.0), (0.0, 0.0, 20.0, 20.0), (20.0, 0.0, 0.0, 20.0)
    assert box_iou(point, point) == box_iou(point, box) == box_iou(flipped, box) == box_iou(flipped, flipped) == 0.0
    assert math.copysign(1, box_iou(flipped, box)) == 1  # the official arithmetic says -0.0


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.data())
def test_permille_and_back(width: int, height: int, data: st.DataObject) -> None:
    x1, x2 = sorted(data.draw(st.lists(st.floats(0, width), min_size=2, max_size=2)))
    y1, y2 = sorted(data.draw(st.lists(st.floats(0, height), min_size=2, max_size=2)))
    back = from_permille(to_permille((x1, y1, x2, y2), (width, height)), (width, height))
    for number, there_and_back, size in zip((x1, y1, x2, y2), back, (width, height) * 2, strict=True):
        assert abs(number - there_and_back) <= 0.5 / 1000 * size + 1e-6 * size


@given(boxes())
def test_clipped_boxes_are_inside(box: Box) -> None:
    x1, y1, x2, y2 = clip_box(box, WH)
    assert 0 <= x1 <= x2 <= WH[0] and 0 <= y1 <= y2 <= WH[1]
    assert all(isinstance(number, int) and 0 <= number <= 1000 for number in to_permille(box, WH))


def test_centre_inside_counts_edges() -> None:
    gold = (0.0, 0.0, 10.0, 10.0)
    assert centre_inside((5.0, 5.0, 15.0, 15.0), gold)
    assert not centre_inside((6.0, 6.0, 16.0, 16.0), gold)
