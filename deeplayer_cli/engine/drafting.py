"""Drafts of an answer, which the model checks in one pass instead of writing them token by token.

What the model itself would not have written is thrown away (Leviathan, Kalman and Matias 2023, arXiv:2211.17192, for
greedy decoding), so drafts change no answer, only the number of passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Draft(Protocol):
    """Guesses at answers."""

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """Return the token ids that may follow what is ``written`` of the answer about an expression; () for none."""


def no_draft(expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
    """Guess nothing: plain greedy decoding."""
    del expression_ids, written
    return ()
