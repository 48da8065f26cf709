"""Drafts of answers. The model verifies a draft in one pass instead of writing it token by token.

Tokens that greedy decoding would not write are thrown away (speculative decoding: Leviathan, Kalman and Matias 2023,
arXiv:2211.17192). So drafts change the number of passes, but no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Draft(Protocol):
    """Proposes the next tokens of an answer."""

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """Return token ids that may come next in an answer; () for no draft.

        Args:
            expression_ids: token ids of the row's expression.
            written: token ids of the answer so far; empty at the beginning.
        """


def no_draft(expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
    """Return no draft: plain greedy decoding."""
    del expression_ids, written
    return ()
