"""Answers to predictions."""

from __future__ import annotations

import pytest

from deeplayer_cli.engine import Answer
from deeplayer_cli.runtime.postprocess import coordinate_score
from deeplayer_cli.schema.answer_rules import parse_answer
from tests.tiny import ByteTokenizer


def test_score_is_the_mean_over_the_first_boxes_coordinate_tokens():
    text = "x [[ 12,345, 6,78]],[[1,2,3,4]]"
    probabilities = [0.5 if character.isdigit() else 0.1 for character in text]
    second = text.index("],[") + 1
    probabilities[second:] = [0.9] * len(text[second:])
    answer = Answer(ByteTokenizer().encode_expression(text), probabilities)
    assert len(parse_answer(text, (100, 100))) == 2
    assert coordinate_score(answer, text, "x", ByteTokenizer().decode) == pytest.approx(0.5)
    assert coordinate_score(answer, "nothing", "x", ByteTokenizer().decode) is None


def test_score_skips_a_box_in_the_repeated_expression():
    expression = "box at [10, 20, 30, 40]"
    text = f"{expression}[[1, 2, 3, 4]]"
    probabilities = [0.1] * len(expression) + [0.5] * (len(text) - len(expression))
    answer = Answer(ByteTokenizer().encode_expression(text), probabilities)
    assert coordinate_score(answer, text, expression, ByteTokenizer().decode) == pytest.approx(0.5)
    assert coordinate_score(answer, text, "another", ByteTokenizer().decode) == pytest.approx(0.1)
