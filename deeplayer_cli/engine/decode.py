"""Greedy decoding with drafts: the model verifies each draft in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.decoder import attend, attention_output_and_mlp, project
from deeplayer_cli.engine.suffixes import pad_rows
from deeplayer_cli.engine.types import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.drafting import Draft
    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.types import Prefilled, Row


@dataclass
class DecodeState:
    """One row's answer while it is decoded; all numbers cover the answer so far.

    Attributes:
        limit: the largest number of tokens.
        eos_id: the token that ends the answer; it is not part of it.
        token_ids: the tokens.
        probabilities: the probability of each token.
        watched: (W,) the probability of each watched token in the place of each token.
        n_drafted: number of drafted tokens.
        n_accepted: number of drafted tokens that the model accepted.
        n_passes: number of passes after the prefill.
        finished: whether the answer is complete.
    """

    limit: int
    eos_id: int
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    watched: list[Tensor] = field(default_factory=list)
    n_drafted: int = 0
    n_accepted: int = 0
    n_passes: int = -1  # the first call of `take` uses the logits of the prefill, which is no pass of its own
    finished: bool = False

    def take(self, draft: Sequence[int], greedy: Sequence[int], probabilities: Sequence[float], watched: Tensor) -> int:
        """Append the tokens that greedy decoding writes: the accepted part of the draft, and one token more.

        Args:
            draft: the drafted next tokens.
            greedy: the token that the model writes next, then the token that it writes after each drafted token. An
                entry is valid only if the draft is right up to there.
            probabilities: the probability of each entry of ``greedy``.
            watched: (T, W) the probabilities of the watched tokens in the place of each entry of ``greedy``.

        Returns:
            The number of accepted tokens of the draft.
        """
        right = next((index for index, token in enumerate(draft) if token != greedy[index]), len(draft))
        self.n_passes += 1
        self.n_drafted += len(draft)
        self.n_accepted += right
        for token, probability, others in zip(greedy[: right + 1], probabilities, watched, strict=False):
            self.finished = self.finished or token == self.eos_id
            if not self.finished:
                self.token_ids.append(token)
                self.probabilities.append(probability)
                self.watched.append(others)
                self.finished = len(self.token_ids) == self.limit
        return right

    def answer(self, kept: list[int], broken_layer: Callable[[], int]) -> Answer:
        """Make the answer; ``broken_layer`` is called only if a probability is not finite."""
        return Answer(
            self.token_ids,
            self.probabilities,
            self.n_drafted,
            self.n_accepted,
            self.n_passes,
            kept,
            None if all(map(math.isfinite, self.probabilities)) else broken_layer(),
            torch.stack(self.watched),
        )


def decode(
    language: LanguageModel, prompts: Prefilled, draft: Draft, eos_id: int, max_new_tokens: int, watched: Tensor
) -> list[Answer]:
    """Decode greedily until ``eos_id`` or ``max_new_tokens``; the first token is never ``eos_id``.

    Each pass verifies the draft of every row, and yields the accepted tokens and one token more. So the answer is that
    of plain greedy decoding (Leviathan, Kalman and Matias 2023, arXiv:2211.17192).

    Args:
        language: the model.
        prompts: from ``prefill``. Decoding changes their caches and logits, so decode them only once.
        draft: proposes drafts.
        eos_id: the token that ends an answer.
        max_new_tokens: the largest number of tokens of an answer.
        watched: (W,) int64, ids of tokens whose probabilities the answers report.
    """
    states = [DecodeState(max_new_tokens, eos_id) for _ in prompts.rows]
    lengths, drafts = list(prompts.suffix_lengths), prompts.drafts
    logits = prompts.logits.float()  # (B, D + 1, vocabulary)
    # The official evaluation generates with min_new_tokens=1: an answer has at least one token.
    logits[:, 0, eos_id] = -torch.inf
    while True:
        taken = zip(states, drafts, *_read(logits, watched), strict=True)
        for row, (state, guessed, *found) in enumerate(taken):
            if not state.finished:
                # The cache holds keys of accepted tokens already. Those of rejected tokens are overwritten later.
                lengths[row] += state.take(guessed, *found)
        if all(state.finished for state in states):
            kept = prompts.kept.tolist()
            return [one.answer(kept[row], partial(prompts.broken_layer, row)) for row, one in enumerate(states)]
        drafts = [_next_draft(draft, row, state) for row, state in zip(prompts.rows, states, strict=True)]
        # Input of the next pass: the last token, which no cache holds yet, and its draft. A finished row gets no input.
        fed = [
            [] if state.finished else [state.token_ids[-1], *guessed]
            for state, guessed in zip(states, drafts, strict=True)
        ]
        logits = decode_pass(language, prompts, fed, lengths).float()
        lengths = [length + bool(tokens) for length, tokens in zip(lengths, fed, strict=True)]


def _read(logits: Tensor, watched: Tensor) -> tuple[list[list[int]], list[list[float]], Tensor]:
    """Read the most likely tokens, their probabilities and those of watched tokens, in one copy to the host.

    Args:
        logits: (B, T, vocabulary) float32.
        watched: (W,) int64.

    Returns:
        (B, T) tokens; (B, T) probabilities; (B, T, W) float32 on the CPU.
    """
    best, greedy = logits.max(-1)  # (B, T) each
    total = logits.logsumexp(-1)
    wanted = torch.cat([best[..., None], logits[..., watched]], dim=-1)  # (B, T, 1 + W)
    probabilities = (wanted - total[..., None]).exp()
    packed = torch.cat([greedy[..., None].int(), probabilities.view(torch.int32)], dim=-1).cpu()  # bits, not values
    probabilities = packed[..., 1:].view(torch.float32)
    return packed[..., 0].tolist(), probabilities[..., 0].tolist(), probabilities[..., 1:]


def decode_pass(
    language: LanguageModel, prompts: Prefilled, fed: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Tensor:
    """Run tokens through all layers and append them to the caches.

    Args:
        language: the model.
        prompts: the prompts and their caches.
        fed: token ids to run, up to T for each row; rows may have different numbers of tokens, or none.
        lengths: number of suffix tokens that each row's caches hold already; ``fed`` follows them.

    Returns:
        Logits (B, T, vocabulary) after each of the tokens ``fed``.
    """
    ids, counts, starts = pad_rows(fed, language.device, lengths)
    steps = torch.arange(ids.shape[1], device=language.device)
    slots = starts[:, None] + steps  # (B, T), suffix slot of each token
    n_suffix = max(length + len(tokens) for length, tokens in zip(lengths, fed, strict=True))
    hidden = language.embed(ids)  # (B, T, C)
    rows = torch.arange(len(ids), device=language.device)[:, None]
    is_token = steps < counts[:, None]  # (B, T); the rest is padding, which may lie behind the last position
    numbers = slots.where(is_token, 0)  # (B, T), position ids, counted from the first suffix token
    # Rows have different numbers of tokens. Their padding goes to the last slot, which no token ever attends to.
    written = slots.where(is_token, prompts.caches[0].capacity - 1)
    previous = None
    for layer, cache in zip(language.layers, prompts.caches, strict=True):
        if previous is None or not cache.has_slots_of(previous):  # nothing was dropped between the two layers
            rotation = language.rotation(cache.suffix_start + numbers)
            visible, into = cache.visible(slots, n_suffix), cache.n_shared + written
        queries, keys, values = project(layer, hidden, rotation)
        cache.write_rows(rows, into, keys, values)
        attended = attend(queries, *cache.upto(n_suffix), visible)
        hidden = attention_output_and_mlp(layer, hidden, attended)
        previous = cache
    return language.logits(hidden)


def _next_draft(draft: Draft, row: Row, state: DecodeState) -> Sequence[int]:
    left = state.limit - len(state.token_ids)
    return () if state.finished else draft(row.expression_ids, state.token_ids)[: left - 1]
