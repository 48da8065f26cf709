from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.boxes import (
    Box,
    box_iou,
    centre_inside,
    clip_box,
    from_permille,
    to_permille,
)

OFFICIAL_PATTERN = re.compile(r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*")
WH = (640, 480)

# Integers whose areas single precision holds exactly, so that scaling and moving change nothing at all.
side = st.integers(1, 2000)
corner = st.integers(-1000, 1000)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(corner), draw(corner)
    return float(x), float(y), float(x + draw(side)), float(y + draw(side))


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
