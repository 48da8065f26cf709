"""How sure the model is of a box: the probability that no edge is far off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_LARGEST = 1000  # of the numbers in an answer, which are per mille
REACH = 0.5
"""How far an edge may be off, as a share of the box's side: a box that is off by that much at one edge, and right at
the others, has an IoU of 0.5."""


class _Tokenizer(Protocol):
    def encode_piece(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class NumberStep(NamedTuple):
    """One token of a number, and what the model would have written instead.

    Attributes:
        token: id of the token.
        probability: of this token.
        alternatives: (W,) probability of each of `NumberTokens.ids` in its place.
    """

    token: int
    probability: float
    alternatives: npt.NDArray[np.float32]


@dataclass(frozen=True)
class NumberTokens:
    """The tokens that write whole numbers.

    Attributes:
        ids: W token ids.
        digits: the digits of each.
    """

    ids: tuple[int, ...]
    digits: tuple[str, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: _Tokenizer) -> NumberTokens:
        """Find the tokens that write the numbers from 0 to 1000 in an answer."""
        answers = "".join(f"[[{number}, {number}]]" for number in range(_LARGEST + 1))
        texts = {token: tokenizer.decode([token]).strip() for token in dict.fromkeys(tokenizer.encode_piece(answers))}
        found = {token: text for token, text in texts.items() if text.isascii() and text.isdecimal()}
        return cls(tuple(found), tuple(found.values()))

    @cached_property
    def _place(self) -> dict[int, int]:
        return {token: place for place, token in enumerate(self.ids)}

    @cached_property
    def _values(self) -> npt.NDArray[np.int64]:
        return np.array([int(digits) for digits in self.digits], dtype=np.int64)

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(digits) for digits in self.digits], dtype=np.int64)

    def near(self, number: str, steps: Sequence[NumberStep], reach: float) -> float:
        """Return the probability that the model writes a number at most ``reach`` away from ``number``.

        Each step has the probabilities of all digits that could stand in its place, given those before it. Where every
        token is one digit, a digit stands for all numbers of this length that begin so, each with equal chance. A
        number that is not plain digits is near to itself only.

        Args:
            number: as the model wrote it.
            steps: its tokens.
            reach: in the number's own unit.
        """
        if not (number.isascii() and number.isdecimal() and len(number) <= len(str(_LARGEST))):
            return math.prod(step.probability for step in steps)
        near, path, written = 0.0, 1.0, ""
        for step in steps:
            place = self._place.get(step.token)
            if place is not None:
                others = step.alternatives * self._shares_near(number, written, reach)
                near += path * float(others.sum() - others[place])
                written += self.digits[place]
            path *= step.probability
        return min(1.0, near + path)

    def _shares_near(self, number: str, written: str, reach: float) -> npt.NDArray[np.float64]:
        """Return, for each token behind ``written``, the share of the numbers it begins that are near ``number``."""
        first = int(written or "0") * 10**self._lengths + self._values
        missing = len(number) - len(written) - self._lengths if self._lengths.max() == 1 else np.zeros_like(first)
        count = 10 ** missing.clip(0)
        low, high = math.ceil(int(number) - reach), math.floor(int(number) + reach)
        overlap = np.minimum(high, (first + 1) * count - 1) - np.maximum(low, first * count) + 1
        return overlap.clip(0) / count


def box_score(numbers: Sequence[str], steps: Sequence[Sequence[NumberStep]], tokens: NumberTokens) -> float:
    """Return the probability that no edge of a box is off by more than half of the box's side.

    This is the product over the four numbers, each given those before it. Half a side is what one edge alone can be off
    while the IoU stays at 0.5.

    Args:
        numbers: x1, y1, x2, y2, as the model wrote them.
        steps: the tokens of each.
        tokens: the tokens that write numbers.
    """
    x1, y1, x2, y2 = map(float, numbers)
    sides = (abs(x2 - x1), abs(y2 - y1))
    return math.prod(
        tokens.near(number, own, REACH * sides[place % 2])
        for place, (number, own) in enumerate(zip(numbers, steps, strict=True))
    )
