"""The form of InternVL's answers: ``<ref>expression</ref><box>[[x1, y1, x2, y2]]</box>``, all known but the numbers."""

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
    """Guesses all but the numbers, see ``deeplayer_cli.engine.Draft``.

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
    def from_tokenizer(cls, tokenizer: _Encoder) -> TemplateDraft:
        """The template in a tokenizer's ids."""
        texts = (_OPENING, _MIDDLE, _SEPARATOR, _CLOSING)
        return cls(*(tuple(tokenizer.encode_piece(text)) for text in texts))

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """The token ids that may follow what is ``written`` of the answer about an expression; () for none."""
        bracket = self.middle[-1]
        if bracket not in written:  # after a slip in the echo, the rest of it may still come as it should
            return (*self.opening, *expression_ids, *self.middle)[len(written) :]
        numbers = written[written.index(bracket) + 1 :]
        if not numbers or numbers[-1] in self.separator or numbers[-1] in self.closing:
            return ()
        more = numbers.count(self.separator[0]) < _NUMBERS - 1
        return self.separator if more else self.closing
