"""Reading boxes out of answers."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.boxes import Box, box_iou
from deeplayer_cli.schema import Prediction, Request, parse_request
from deeplayer_cli.schema.answer_rules import ANSWER_RULES, coordinate_spans, echo_end, parse_answer

OFFICIAL_PATTERN = re.compile(r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*")
WH = (640, 480)


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


BOX = "[[100, 200, 500, 800]]"


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        (expression, f"{echo}{BOX}")
        for expression, echo in [
            ("the sign", "the sign"),
            ("the sign [EXIT]", "the sign [EXIT]"),
            ("key [ on the left", "key [ on the left"),
            ("key ] on the left", "key ] on the left"),
            ("a, b, c, d", "a, b, c, d"),
            ("[a, b, c, d]", "[a, b, c, d]"),
            ("box at [10, 20, 30, 40]", "box at [10, 20, 30, 40]"),
            ("[[1, 2, 3, 4]]", "[[1, 2, 3, 4]]"),
            ("the  sign\t[EXIT] ", " the sign [EXIT] "),
            ("dog dog", "dog dog"),
            ("dog", "dog dog"),
            ("dog.*[", "dog.*["),
            ("another", "the sign"),
            ("[", ""),
        ]
    ],
)
def test_the_box_behind_the_repeated_expression(expression: str, answer: str) -> None:
    request = parse_request(
        json.dumps({"image": "a.png", "expression": expression}).encode(), "here", "1", Path(), confined=False
    )
    assert isinstance(request, Request)
    read = Prediction.answered(request, answer.strip(), WH)
    assert (read.status, read.boxes) == ("ok", parse_answer(BOX, WH))
    spans = coordinate_spans(answer, echo_end(answer, expression))
    assert [answer[start:end] for start, end in spans] == ["100", "200", "500", "800"]


def test_an_echo_without_a_box_has_no_box() -> None:
    answer = "box at [10, 20, 30, 40]"
    assert parse_answer(answer[echo_end(answer, answer) :], WH) == ()
    assert len(parse_answer(answer, WH)) == 1, "the official rule reads the whole answer"
