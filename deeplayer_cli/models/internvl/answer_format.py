"""InternVL's answer format, ``<ref>expression</ref><box>[[x1, y1, x2, y2]]</box>``, as a draft.

Only the four numbers are not known in advance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPENING, _MIDDLE, _SEPARATOR, _CLOSING = "<ref>", "</ref><box>[[", ", ", "]]</box><|im_end|>"
_NUMBERS = 4


class _Encoder(Protocol):
    def encode_piece(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class TemplateDraft:
    """Drafts all parts of an answer except the numbers. It implements ``deeplayer_cli.engine.Draft``.

    Attributes:
        opening: ids of ``<ref>``.
        middle: ids of ``</ref><box>[[``.
        separator: ids of the text between two numbers.
        closing: ids of the text after the last number, including the end of the answer.
    """

    opening: tuple[int, ...]
    middle: tuple[int, ...]
    separator: tuple[int, ...]
    closing: tuple[int, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: _Encoder) -> TemplateDraft:
        """Encode the parts of the answer format with a tokenizer."""
        texts = (_OPENING, _MIDDLE, _SEPARATOR, _CLOSING)
        return cls(*(tuple(tokenizer.encode_piece(text)) for text in texts))

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """Draft the next part of an answer.

        Args:
            expression_ids: token ids of the expression.
            written: token ids of the answer so far.

        Returns:
            Token ids that are likely to follow; empty where a number follows, or after the end of the answer.
        """
        bracket = self.middle[-1]
        if bracket not in written:  # if the repeated expression differs in a token, the rest can still match
            return (*self.opening, *expression_ids, *self.middle)[len(written) :]
        numbers = written[written.index(bracket) + 1 :]
        if not numbers or numbers[-1] in self.separator or numbers[-1] in self.closing:
            return ()
        more = numbers.count(self.separator[0]) < _NUMBERS - 1
        return self.separator if more else self.closing
