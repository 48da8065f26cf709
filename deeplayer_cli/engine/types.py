"""The data that each step of the engine hands to the next: named tensors with shapes.

In the shapes: B prompts, N images, S keys, T suffix tokens, C the width of the hidden states; G groups of up to M rows
that share keys and values (`row_groups`). The model has L decoder layers; the first K of them run before visual tokens
are dropped. A prompt is ``P0 | visual tokens | P1 | suffix``: P0 is the text before the image, P1 the text between the
image and the expression.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.kv_cache import LayerCache
    from deeplayer_cli.pruning import QueryRowKind, Selection


@dataclass(frozen=True)
class Row:
    """One expression about one image of a ``Prefix``.

    Attributes:
        image: index of the image within the prefix.
        expression_ids: token ids of the expression alone.
        seed: a number that methods with random choices use for this row.
    """

    image: int
    expression_ids: Sequence[int]
    seed: int = 0


@dataclass(frozen=True)
class Prefix:
    """The state of N images of equal tile count after layers 1..K; all expressions about an image share it.

    Attributes:
        keys, values: for each of the K layers, (N, kv_heads, n_shared, head_dim) over P0, visual tokens and P1. A scout
            has none of P1, which runs with the suffixes.
        visual: (N, n_visual, C), output of layer ``n_updated`` for the visual tokens; for 0, their embeddings.
        text: (N, n_p1, C), output of layer K for P1; for a scout, its embeddings.
        text_queries: (N, heads, n_p1, head_dim) of layer K for P1; a placeholder without meaning if K = 0, or for a
            scout.
        embeddings: (N, n_visual, C), input of layer 1 for the visual tokens.
        text_embeddings: (1, n_p1, C), the same for P1.
        n_updated: number of layers that updated the hidden states of the visual tokens. The later ones of the K layers
            only projected their keys and values: they are frozen, or layer K is deferred.
        places: (N, n_visual, 3), the place of each visual token; see ``pruning.token_places``.
        class_attention, vision_keys: (N, n_visual, heads of the vision tower) and (N, n_visual, its head_dim), see
            ``models.internvl.vision.Encoded``.
        n_shared: number of tokens of P0, visual tokens and P1 together.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visual: Tensor
    text: Tensor
    text_queries: Tensor
    embeddings: Tensor
    text_embeddings: Tensor
    n_updated: int
    places: Tensor
    class_attention: Tensor
    vision_keys: Tensor
    n_shared: int

    @property
    def n_visual(self) -> int:
        """Number of visual tokens of an image."""
        return self.visual.shape[1]


@dataclass(frozen=True)
class LayerView:
    """The tensors of one layer that a stage can read.

    Attributes:
        queries: (B, heads, at least n_p1 + T, head_dim); the last ones belong to P1 and suffix.
        keys: (B, kv_heads, S, head_dim) of the whole prompts.
        values: (B, kv_heads, S, head_dim) of the whole prompts.
        hidden: returns the hidden states (B, S - n_p0, C) of all tokens after P0. It is a function because most stages
            do not need them.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    hidden: Callable[[], Tensor]


@dataclass(frozen=True)
class Suffix:
    """The suffixes of B prompts before the first drop: expression, closing, draft, padding.

    Attributes:
        embeddings: (B, T, C), input of layer 1.
        hidden: (B, T, C), input of the first layer after the drop: output of layer K; after a scout, the embeddings.
        layer_k: layer K over the whole prompts; its queries, keys and values are placeholders without meaning if K = 0.
        images: (B,) index of each row's image in the prefix.
        rows: where expression, prompt and draft end in each suffix.
        capacity: number of suffix slots that each cache must have.
    """

    embeddings: Tensor
    hidden: Tensor
    layer_k: LayerView
    images: Tensor
    rows: QueryRows
    capacity: int

    @property
    def n_tokens(self) -> int:
        """T, the number of tokens of the longest suffix."""
        return self.hidden.shape[1]


class SuffixLengths(NamedTuple):
    """Numbers of tokens of B suffixes, on the host.

    Attributes:
        expressions: of each expression.
        prompts: up to the end of each prompt (expression and closing).
        drafted: up to the end of each draft.
    """

    expressions: Sequence[int]
    prompts: Sequence[int]
    drafted: Sequence[int]

    def most_rows(self, kind: QueryRowKind, n_p1: int, rows: Iterable[int]) -> int:
        """The largest number of query rows of a kind, among some of the prompts; P1 has ``n_p1`` tokens."""
        match kind:
            case "last" | "drafted":
                return 1
            case "text":
                return max(self.expressions[row] for row in rows)
            case "question":
                return n_p1 + max(self.prompts[row] for row in rows)


@dataclass(frozen=True)
class QueryRows:
    """Where expression, prompt and draft end in the suffixes of B prompts. All tensors are int64.

    Attributes:
        lengths: the same three on the host.
        expressions: (B,) number of tokens of each expression.
        prompts: (B,) number of suffix tokens up to the end of the prompt (expression and closing).
        drafted: (B,) number of suffix tokens up to the end of the draft.
        seeds: (B,) the seed of each row.
    """

    lengths: SuffixLengths
    expressions: Tensor
    prompts: Tensor
    drafted: Tensor
    seeds: Tensor

    def pick(self, kind: QueryRowKind, queries: Tensor, n_keys: int, n_suffix: int) -> tuple[Tensor, Tensor]:
        """Pick the query rows of one kind, and compute which keys each of them attends to.

        Args:
            kind: which query rows to pick.
            queries: (B, heads, n_p1 + T, head_dim) of P1 and suffix.
            n_keys: S, the number of keys of the whole prompt; P1 and suffix come last.
            n_suffix: T, the number of suffix tokens.

        Returns:
            The queries (B, heads, R, head_dim), and the keys that they attend to, (B, R, S) bool. A row that is False
            everywhere is padding.
        """
        n_text = queries.shape[2]
        chosen = self._rows_of(kind, n_text - n_suffix, n_suffix)  # (B, n_p1 + T)
        # A stable sort moves the chosen rows to the front. R is the largest number of chosen rows in the batch.
        most = self.lengths.most_rows(kind, n_text - n_suffix, range(len(queries)))
        order = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, R)
        slots = torch.arange(n_keys, device=queries.device)
        visible = (slots <= n_keys - n_text + order[..., None]) & chosen.gather(1, order)[..., None]
        return queries.take_along_dim(order[:, None, :, None], dim=2), visible

    def prompt_tokens(self, n_before: int, n_suffix: int) -> Tensor:
        """Which keys belong to the prompt, (B, n_before + n_suffix) bool; False for the draft and for padding."""
        slots = torch.arange(n_before + n_suffix, device=self.prompts.device)
        return slots < n_before + self.prompts[:, None]

    def _rows_of(self, kind: QueryRowKind, n_p1: int, n_suffix: int) -> Tensor:
        """Which tokens of P1 and suffix are query rows of this kind, (B, n_p1 + T) bool."""
        suffix = torch.arange(-n_p1, n_suffix, device=self.prompts.device)  # 0 is the first suffix token
        match kind:
            case "last":
                return suffix == self.prompts[:, None] - 1
            case "text":
                return (suffix >= 0) & (suffix < self.expressions[:, None])
            case "question":
                return suffix < self.prompts[:, None]
            case "drafted":
                return suffix == self.drafted[:, None] - 1


@dataclass(frozen=True)
class Pruned:
    """The state of B prompts after the last layer.

    Attributes:
        hidden: (B, T, C), output of the last layer for the suffixes.
        kept: the visual tokens that are kept after the last drop.
        caches: one for each of the layers K+1..L; for a scout's choice, one for each decoder layer.
    """

    hidden: Tensor
    kept: KeptTokens
    caches: list[LayerCache]


@dataclass(frozen=True)
class KeptTokens:
    """The kept visual tokens of B prompts.

    Attributes:
        indices: (B, n_keep) int64, sorted indices into all visual tokens of the image.
        weights: (B, n_keep) float32, the number of original visual tokens that each kept token stands for.
        filled: (B, n_keep) bool, False where an index is only padding; None if all indices are kept tokens.
    """

    indices: Tensor
    weights: Tensor
    filled: Tensor | None = None

    @classmethod
    def from_all(cls, batch: int, n_visual: int, device: torch.device) -> KeptTokens:
        """Keep all visual tokens of ``batch`` prompts."""
        indices = torch.arange(n_visual, device=device).expand(batch, -1)
        return cls(indices, torch.ones(1, 1, device=device).expand(batch, n_visual))

    def narrowed(self, selection: Selection) -> KeptTokens:
        """The tokens that are still kept after a selection, whose indices point into these."""
        indices, weights, filled = self.indices.gather(1, selection.indices), selection.weights, None
        if weights is None:
            weights = self.weights.gather(1, selection.indices)
        if selection.counts is not None:
            filled = torch.arange(indices.shape[1], device=indices.device) < selection.counts[:, None]
        return KeptTokens(indices, weights, filled)

    def trimmed(self) -> KeptTokens:
        """The tokens without the columns that are padding in every row; this waits for the device."""
        if self.filled is None:
            return self
        most = int(self.filled.sum(1).max())
        return KeptTokens(self.indices[:, :most], self.weights[:, :most], self.filled[:, :most])

    def tolist(self) -> list[list[int]]:
        """The kept indices of every row, without padding."""
        # Whole tensors: to read row by row would wait for the device each time.
        rows: list[list[int]] = self.indices.cpu().tolist()
        if self.filled is None:
            return rows
        return [list(compress(row, filled)) for row, filled in zip(rows, self.filled.cpu().tolist(), strict=True)]


@dataclass(frozen=True)
class Prefilled:
    """The state of B prompts after prefill, drafts included.

    Attributes:
        rows: the B rows.
        drafts: the drafted beginning of each answer, as token ids.
        logits: (B, D + 1, vocabulary) in the model's dtype: after the prompt, and after each of up to D drafted tokens.
        caches: one for each decoder layer.
        suffix_lengths: number of prompt tokens in each row's suffix, without the draft.
        kept: the visual tokens that are kept after the last drop.
    """

    rows: Sequence[Row]
    drafts: Sequence[Sequence[int]]
    logits: Tensor
    caches: list[LayerCache]
    suffix_lengths: list[int]
    kept: KeptTokens


@dataclass(frozen=True)
class Answer:
    """A greedy answer.

    Attributes:
        token_ids: the answer's tokens, without the closing ``<|im_end|>``.
        probabilities: the probability that the model gave each token.
        n_drafted: number of drafted tokens.
        n_accepted: number of drafted tokens that the model accepted.
        n_passes: number of passes through the model after the prefill.
        kept: sorted indices of the visual tokens that are kept after the last drop.
        broken_layer: the layer, counted from 1, whose output is the first that is not finite; None if all probabilities
            are finite.
        watched: (n_tokens, W) float32 on the CPU, the probability of each watched token in the place of each token.
    """

    token_ids: list[int]
    probabilities: list[float]
    n_drafted: int = 0
    n_accepted: int = 0
    n_passes: int = 0
    kept: list[int] = field(default_factory=list)
    broken_layer: int | None = None
    watched: Tensor = field(default_factory=lambda: torch.empty(0, 0), compare=False)
