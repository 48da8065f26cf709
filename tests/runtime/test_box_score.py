"""The score of a box, against all numbers written out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.runtime.box_score import NumberStep, NumberTokens, box_score
from tests.tiny import ByteTokenizer

WHOLE = NumberTokens(tuple(range(1001)), tuple(map(str, range(1001))))
DIGITS = NumberTokens(tuple(range(10)), tuple("0123456789"))
SEEDS = st.integers(0, 2**32 - 1)


def distribution(seed: int, n: int) -> np.ndarray:
    weights = np.random.default_rng(seed).random(n).astype(np.float32) ** 8
    return 0.9 * weights / weights.sum()  # the rest goes to tokens that are no numbers


def test_the_tokens_of_numbers_are_found() -> None:
    tokens = NumberTokens.from_tokenizer(ByteTokenizer())
    assert sorted(zip(tokens.digits, tokens.ids, strict=True)) == [(str(digit), 3 + 48 + digit) for digit in range(10)]


@given(SEEDS, st.integers(0, 1000), st.floats(0, 1000))
def test_a_token_for_each_number_sums_over_its_neighbours(seed: int, number: int, reach: float) -> None:
    chances = distribution(seed, 1001)
    near = WHOLE.near(str(number), [NumberStep(number, float(chances[number]), chances)], reach)
    assert near == pytest.approx(sum(chances[other] for other in range(1001) if abs(other - number) <= reach), rel=1e-4)


@given(SEEDS, st.integers(0, 999), st.floats(0, 1000))
def test_digits_stand_for_all_numbers_of_this_length_that_begin_so(seed: int, number: int, reach: float) -> None:
    """A number off the written path has the chance of its first digit off the path, spread evenly over the rest."""
    text = str(number)
    chances = [distribution(seed + place, 10) for place in range(len(text))]
    steps = [NumberStep(int(digit), float(row[int(digit)]), row) for digit, row in zip(text, chances, strict=True)]

    def chance(other: str) -> float:
        same = next((place for place, (a, b) in enumerate(zip(text, other, strict=True)) if a != b), len(text))
        on_path = np.prod([chances[place][int(text[place])] for place in range(same)])
        off = 1 if same == len(text) else chances[same][int(other[same])] / 10 ** (len(text) - same - 1)
        return float(on_path * off)

    others = ("".join(digits) for digits in product("0123456789", repeat=len(text)))
    expected = sum(chance(other) for other in others if abs(int(other) - number) <= reach)
    assert DIGITS.near(text, steps, reach) == pytest.approx(min(1.0, expected), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("text", ["0.5", "-3", "1e3", "٤", "12345"])
def test_what_is_no_plain_number_is_near_to_itself_only(text: str) -> None:
    steps = [NumberStep(5, 0.5, distribution(0, 10)), NumberStep(77, 0.5, distribution(1, 10))]
    assert DIGITS.near(text, steps, 1000) == 0.25


def test_a_box_is_as_sure_as_all_its_edges() -> None:
    numbers = ["100", "200", "300", "240"]  # half of its sides: 100 and 20
    sure = np.zeros(1001, np.float32)
    sure[[150, 180, 221]] = 0.5, 0.25, 0.25
    steps = [[NumberStep(int(number), 0.0, sure)] for number in numbers]
    reaches = [100, 20, 100, 20]  # near are x1: 0..200; y1: 180..220; x2: 200..400; y2: 220..260
    near = [WHOLE.near(number, own, reach) for number, own, reach in zip(numbers, steps, reaches, strict=True)]
    assert near == [0.75, 0.25, 0.25, 0.25]
    assert box_score(numbers, steps, WHOLE) == pytest.approx(0.75 * 0.25**3)


def test_a_box_without_area_has_a_score() -> None:
    chances = distribution(3, 1001)
    steps = [[NumberStep(500, float(chances[500]), chances)]] * 4
    assert box_score(["500"] * 4, steps, WHOLE) == pytest.approx(float(chances[500]) ** 4)
