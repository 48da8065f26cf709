"""Greedy decoding with drafts: the model verifies each draft in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.kv_cache import narrow_caches
from deeplayer_cli.engine.row_groups import close_gaps
from deeplayer_cli.engine.suffixes import pad_rows
from deeplayer_cli.engine.types import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.drafting import Draft
    from deeplayer_cli.engine.kv_cache import LayerCache
    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.types import Prefilled, Row


@dataclass
class DecodeState:
    """One row's answer while it is decoded; all numbers cover the answer so far.

    Attributes:
        row: the row.
        n_cached: number of prompt and answer tokens that the row's caches hold.
        limit: the largest number of tokens.
        eos_id: the token that ends the answer; it is not part of it.
        token_ids: the tokens.
        probabilities: the probability of each token.
        watched: (W,) the probability of each watched token in the place of each token.
        n_drafted: number of drafted tokens.
        n_accepted: number of drafted tokens that the model accepted.
        n_passes: number of passes after the prefill.
        finished: whether the answer is complete.
        broken_layer: see `Answer`.
    """

    row: Row
    n_cached: int
    limit: int
    eos_id: int
    token_ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    watched: list[Tensor] = field(default_factory=list)
    n_drafted: int = 0
    n_accepted: int = 0
    n_passes: int = -1  # the first call of `take` uses the logits of the prefill, which is no pass of its own
    finished: bool = False
    broken_layer: int | None = None

    @property
    def n_left(self) -> int:
        """The largest number of tokens that may still follow."""
        return self.limit - len(self.token_ids)

    def take(
        self, draft: Sequence[int], greedy: Sequence[int], probabilities: Sequence[float], watched: Tensor
    ) -> None:
        """Append the tokens that greedy decoding writes: the accepted part of the draft, and one token more.

        Args:
            draft: the drafted next tokens.
            greedy: the token that the model writes next, then the token that it writes after each drafted token. An
                entry is valid only if the draft is right up to there.
            probabilities: the probability of each entry of ``greedy``.
            watched: (T, W) the probabilities of the watched tokens in the place of each entry of ``greedy``.
        """
        right = next((index for index, token in enumerate(draft) if token != greedy[index]), len(draft))
        self.n_passes += 1
        self.n_drafted += len(draft)
        self.n_accepted += right
        # The cache holds keys of accepted tokens already. Those of rejected tokens are overwritten later.
        self.n_cached += right + (self.n_passes > 0)
        for token, probability, others in zip(greedy[: right + 1], probabilities, watched, strict=False):
            self.finished = self.finished or token == self.eos_id
            if not self.finished:
                self.token_ids.append(token)
                self.probabilities.append(probability)
                self.watched.append(others)
                self.finished = len(self.token_ids) == self.limit

    def answer(self, kept: list[int]) -> Answer:
        """Make the answer of a row that keeps these visual tokens."""
        return Answer(
            self.token_ids,
            self.probabilities,
            n_drafted=self.n_drafted,
            n_accepted=self.n_accepted,
            n_passes=self.n_passes,
            kept=kept,
            broken_layer=self.broken_layer,
            watched=torch.stack(self.watched),
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
    states = [
        DecodeState(row, length, max_new_tokens, eos_id)
        for row, length in zip(prompts.rows, prompts.suffix_lengths, strict=True)
    ]
    batch, caches, drafts = states, prompts.caches, prompts.drafts
    logits = prompts.logits.float()  # (B, D + 1, vocabulary)
    # The official evaluation generates with min_new_tokens=1: an answer has at least one token.
    logits[:, 0, eos_id] = -torch.inf
    while True:
        for index, (state, guessed, *found) in enumerate(zip(batch, drafts, *_read(logits, watched), strict=True)):
            state.take(guessed, *found)
            if state.finished and not all(map(math.isfinite, state.probabilities)):
                state.broken_layer = _broken_layer(caches, index)
        left = [index for index, state in enumerate(batch) if not state.finished]
        if not left:
            return [state.answer(kept) for state, kept in zip(states, prompts.kept.tolist(), strict=True)]
        if len(left) < len(batch):
            order = list(range(len(left)))
            for origin, target in close_gaps(left).items():
                order[target] = origin
            batch, caches = [batch[index] for index in order], narrow_caches(caches, order)
        drafts = [draft(state.row.expression_ids, state.token_ids)[: state.n_left - 1] for state in batch]
        # Input of the next pass: the last token, which no cache holds yet, and its draft.
        fed = [[state.token_ids[-1], *guessed] for state, guessed in zip(batch, drafts, strict=True)]
        logits = decode_pass(language, caches, fed, [state.n_cached for state in batch]).float()


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
    language: LanguageModel, caches: Sequence[LayerCache], fed: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Tensor:
    """Run tokens through all layers and append them to the caches.

    Args:
        language: the model.
        caches: of B rows, one for each layer.
        fed: token ids to run, up to T for each row; rows may have different numbers of tokens.
        lengths: number of suffix tokens that each row's caches hold already; ``fed`` follows them.

    Returns:
        Logits (B, T, vocabulary) after each of the tokens ``fed``.
    """
    ids, counts, starts = pad_rows(fed, language.device, lengths, least=language.least_width)
    steps = torch.arange(ids.shape[1], device=language.device)
    numbers = starts[:, None] + steps  # (B, T), place of each token in its row's suffix
    n_suffix = max(length + len(tokens) for length, tokens in zip(lengths, fed, strict=True))
    hidden = language.embed(ids)  # (B, T, C)
    is_token = steps < counts[:, None]  # (B, T); the rest is padding, which may lie behind the last position
    # Rows have different numbers of tokens. Their padding goes to the last slot, which no token ever attends to.
    written = numbers.where(is_token, caches[0].slots.capacity - 1)
    positions = numbers.where(is_token, 0)
    slots = None
    for index, cache in enumerate(caches):
        if cache.slots is not slots:  # something was dropped before this layer
            slots = cache.slots
            rotation = language.rotation(slots.suffix_start + positions)
            step = slots.step(numbers, written, n_suffix, language.group, language.dtype)
        hidden, _ = language.run_cached(index, hidden, rotation, cache, step)
    return language.logits(hidden)


def _broken_layer(caches: Sequence[LayerCache], row: int) -> int:
    """Find the layer whose output is the first that is not finite, for a row whose answer is not finite.

    Returns:
        The layer, counted from 1; 0 if the input of layer 1 is not finite.
    """
    # A cache holds keys and values of the layer's input. So the first bad cache points to the layer before it.
    return next((layer for layer, cache in enumerate(caches) if not cache.is_finite(row)), len(caches))
