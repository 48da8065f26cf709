"""Answers to predictions."""

from __future__ import annotations

import math

import torch

from deeplayer_cli.engine import Answer
from deeplayer_cli.runtime.box_score import NumberTokens
from deeplayer_cli.runtime.postprocess import score_of
from deeplayer_cli.schema.answer_rules import parse_answer
from tests.tiny import ByteTokenizer

TOKENIZER = ByteTokenizer()
NUMBERS = NumberTokens.from_tokenizer(TOKENIZER)


def answered(text: str, sure: range) -> Answer:
    """An answer whose digits in ``sure`` are certain; anywhere else, the model may write a 9 as well as the token."""
    ids = TOKENIZER.encode_expression(text)
    watched = torch.zeros(len(ids), len(NUMBERS.ids))
    nine = NUMBERS.digits.index("9")
    for place, character in enumerate(text):
        if character.isdigit() and place in sure:
            watched[place, NUMBERS.digits.index(character)] = 1.0
        else:
            watched[place, nine] = 0.5
    return Answer(ids, [1.0 if place in sure else 0.5 for place in range(len(ids))], watched=watched)


def test_the_score_is_of_the_first_box() -> None:
    text = "x [[ 12,345, 86,378]],[[1,2,3,4]]"
    assert len(parse_answer(text, (100, 100))) == 2
    first = range(text.index("]]"))
    assert score_of(answered(text, first), text, "x", TOKENIZER.decode, NUMBERS) == 1.0
    near = (  # half of the sides: 37 and 16.5
        0.5,  # 12, not 9., but 19
        0.25,  # 345, not 9.. or 39., but 349
        1.0,  # 86, 9. and 89
        0.5 * (0.5 + 0.5 * 0.5),  # 378, not 9.., half of 39.
    )
    assert score_of(answered(text, range(0)), text, "x", TOKENIZER.decode, NUMBERS) == round(math.prod(near), 4)
    assert score_of(answered(text, first), "nothing", "x", TOKENIZER.decode, NUMBERS) is None


def test_the_score_skips_a_box_in_the_repeated_expression() -> None:
    expression = "box at [10, 20, 30, 40]"
    text = f"{expression}[[1, 2, 3, 4]]"
    answer = answered(text, range(len(expression), len(text)))
    assert score_of(answer, text, expression, TOKENIZER.decode, NUMBERS) == 1.0
    assert score_of(answer, text, "another", TOKENIZER.decode, NUMBERS) < 0.5
