"""Guesses at the rest of an answer, which the model then checks in one pass instead of writing it token by token.

InternVL answers ``<ref>expression</ref><box>[[x1, y1, x2, y2]]</box>``: all but the four numbers is known before. What
the model itself would not have written is thrown away (Leviathan, Kalman and Matias 2023, arXiv:2211.17192, for greedy
decoding), so drafts change no answer, only the number of passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.prompts import ANSWER_CLOSING, ANSWER_MIDDLE, ANSWER_OPENING, ANSWER_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.checkpoints.tokenizer import Tokenizer

_NUMBERS = 4


class Draft(Protocol):
    """Guesses at answers."""

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """Return the token ids that may follow what is ``written`` of the answer about an expression; () for none."""


def no_draft(expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
    """Guess nothing: plain greedy decoding."""
    del expression_ids, written
    return ()


@dataclass(frozen=True)
class TemplateDraft:
    """Guesses all that InternVL's answer always holds.

    Attributes:
        opening: ids of ``<ref>``.
        middle: ids of ``</ref><box>[[``.
        separator: ids of what stands between two numbers.
        closing: ids of what follows the last one, the end of the answer included.
    """

    opening: tuple[int, ...]
    middle: tuple[int, ...]
    separator: tuple[int, ...]
    closing: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TemplateDraft:
        """The template in a tokenizer's ids."""
        texts = (ANSWER_OPENING, ANSWER_MIDDLE, ANSWER_SEPARATOR, ANSWER_CLOSING)
        return cls(*(tuple(tokenizer.encode_piece(text)) for text in texts))

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """See ``Draft``."""
        bracket = self.middle[-1]
        if bracket not in written:  # after a slip in the echo, the rest of it may still come as it should
            return (*self.opening, *expression_ids, *self.middle)[len(written) :]
        numbers = written[written.index(bracket) + 1 :]
        if not numbers or numbers[-1] in self.separator or numbers[-1] in self.closing:
            return ()
        more = numbers.count(self.separator[0]) < _NUMBERS - 1
        return self.separator if more else self.closing
