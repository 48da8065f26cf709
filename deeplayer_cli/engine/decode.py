"""Greedy decoding, with drafts that are checked and taken or dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.decoder import attend, attention_output_and_mlp, project
from deeplayer_cli.engine.kv_cache import pad_rows
from deeplayer_cli.engine.types import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.drafting import Draft
    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.types import Prefilled, Row


@dataclass
class DecodeState:
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


def decode(language: LanguageModel, prompts: Prefilled, draft: Draft, eos_id: int, max_new_tokens: int) -> list[Answer]:
    """Answer greedily until ``eos_id`` or ``max_new_tokens``; the first token is never ``eos_id``.

    Each pass checks a row's draft and yields one token more than was right of it, so the tokens are greedy's own.
    Writes into the prompts' caches, so a ``Prefilled`` is decoded once.
    """
    states = [DecodeState(max_new_tokens, eos_id) for _ in prompts.rows]
    lengths, drafts = list(prompts.suffix_lengths), prompts.drafts
    logits = prompts.logits.float()  # (B, D + 1, vocabulary)
    logits[:, 0, eos_id] = -torch.inf  # min_new_tokens=1 of the official evaluation
    while True:
        best, greedy = logits.max(-1)
        probabilities = (best - logits.logsumexp(-1)).exp()
        taken = zip(states, drafts, greedy.tolist(), probabilities.tolist(), strict=True)
        for row, (state, guessed, tokens, chances) in enumerate(taken):
            if not state.finished:
                lengths[row] += state.take(guessed, tokens, chances)
        if all(state.finished for state in states):
            kept = prompts.kept.tolist()
            return [one.answer(kept[row], partial(prompts.broken_layer, row)) for row, one in enumerate(states)]
        drafts = [_next_draft(draft, row, state) for row, state in zip(prompts.rows, states, strict=True)]
        fed = [
            [] if state.finished else [state.token_ids[-1], *guessed]
            for state, guessed in zip(states, drafts, strict=True)
        ]
        logits = decode_pass(language, prompts, fed, lengths).float()
        lengths = [length + bool(tokens) for length, tokens in zip(lengths, fed, strict=True)]


def decode_pass(
    language: LanguageModel, prompts: Prefilled, fed: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Tensor:
    """Logits (B, T, vocabulary) after each of the tokens ``fed``, which follow each row's first ``lengths`` ones."""
    ids, counts = pad_rows(fed, language.device)
    steps = torch.arange(ids.shape[1], device=language.device)
    slots = torch.tensor(lengths, device=language.device)[:, None] + steps  # (B, T) of the suffix
    n_suffix = max(length + len(tokens) for length, tokens in zip(lengths, fed, strict=True))
    hidden = language.embed(ids)
    starts = {cache.suffix_start for cache in prompts.caches}
    rotations = {start: language.rotation(start + slots) for start in starts}
    for layer, cache in zip(language.layers, prompts.caches, strict=True):
        queries, keys, values = project(layer, hidden, rotations[cache.suffix_start])
        # What pads a row goes to the last slot, which no token ever reads.
        cache.write_suffix(slots.where(steps < counts[:, None], cache.capacity - 1), keys, values)
        attended = attend(queries, *cache.upto(n_suffix), cache.visible(slots, n_suffix))
        hidden = attention_output_and_mlp(layer, hidden, attended)
    return language.logits(hidden)


def _next_draft(draft: Draft, row: Row, state: DecodeState) -> Sequence[int]:
    left = state.limit - len(state.token_ids)
    return () if state.finished else draft(row.expression_ids, state.token_ids)[: left - 1]
