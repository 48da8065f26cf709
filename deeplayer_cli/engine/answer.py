"""Answers, and how drafts of them are taken or left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Answer:
    """A greedy answer.

    Attributes:
        token_ids: the closing ``<|im_end|>`` left out.
        probabilities: what the model gave each token.
        n_drafted: tokens that were guessed.
        n_accepted: guesses that were right.
        n_passes: passes through the model after the prompt's own.
        kept: sorted indices of the visual tokens that stayed to the end.
        as_drafted: it begins as the draft did that was read with the prompt.
        broken_layer: where its probabilities are not finite, the layer, counted from 1, that made them so.
    """

    token_ids: list[int]
    probabilities: list[float]
    n_drafted: int = 0
    n_accepted: int = 0
    n_passes: int = 0
    kept: list[int] = field(default_factory=list)
    as_drafted: bool = True
    broken_layer: int | None = None


@dataclass
class Writing:
    """An answer in the making.

    Attributes:
        limit: tokens it may have.
        eos_id: the token that ends it.
    """

    limit: int
    eos_id: int
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    n_drafted: int = 0
    n_accepted: int = 0
    n_passes: int = -1
    as_drafted: bool = True
    finished: bool = False

    def take(self, draft: Sequence[int], greedy: Sequence[int], probabilities: Sequence[float]) -> int:
        """Take what greedy decoding would have written, one token more than of the draft was right.

        Args:
            draft: guesses at the next tokens.
            greedy: what the model writes next, and what after each guess, if the guesses until there were right.
            probabilities: of ``greedy``.

        Returns:
            How many guesses were right.
        """
        right = next((index for index, token in enumerate(draft) if token != greedy[index]), len(draft))
        if self.n_passes < 0:
            self.as_drafted = right == len(draft)
        self.n_passes += 1
        self.n_drafted += len(draft)
        self.n_accepted += right
        for token, probability in zip(greedy[: right + 1], probabilities, strict=False):
            self.finished = self.finished or token == self.eos_id
            if not self.finished:
                self.token_ids.append(token)
                self.probabilities.append(probability)
                self.finished = len(self.token_ids) == self.limit
        return right

    def answer(self, kept: list[int], broken_layer: Callable[[], int]) -> Answer:
        """The answer as it stands; ``broken_layer`` is asked if it is not finite."""
        return Answer(
            self.token_ids,
            self.probabilities,
            self.n_drafted,
            self.n_accepted,
            self.n_passes,
            kept,
            self.as_drafted,
            None if all(map(math.isfinite, self.probabilities)) else broken_layer(),
        )
