"""What the engine hands from step to step: bundles of tensors with names and shapes.

B prompts, N images, S keys; L decoder layers, of which the first K run before anything is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.kv_cache import LayerCache
    from deeplayer_cli.pruning import QueryRowKind


@dataclass(frozen=True)
class Row:
    """One expression about one image of a ``Prefix``.

    Attributes:
        image: index of the image within the prefix.
        expression_ids: the expression's token ids, without what surrounds it.
        seed: the row's own number for methods that draw at random.
    """

    image: int
    expression_ids: Sequence[int]
    seed: int = 0


@dataclass(frozen=True)
class Prefix:
    """What N images of equal tile count share with all their expressions, after layers 1..K.

    Attributes:
        keys, values: for each of the K layers, (N, kv_heads, n_shared, head_dim) over P0, visual tokens and P1.
        visual: (N, n_visual, C), output of layer K for the visual tokens; its input where ``layer_is_deferred``.
        text: (N, n_p1, C), output of layer K for P1.
        layer_is_deferred: layer K has computed keys and values only; kept tokens run through the rest of it later.
        places: (N, n_visual, 3), where each visual token lies; see ``pruning.token_places``.
        class_attention: (N, n_visual, heads), see ``models.internvl.vision.Encoded``.
        n_shared: P0, visual tokens and P1 together.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visual: Tensor
    text: Tensor
    layer_is_deferred: bool
    places: Tensor
    class_attention: Tensor
    n_shared: int

    @property
    def n_visual(self) -> int:
        """Visual tokens of an image."""
        return self.visual.shape[1]


@dataclass(frozen=True)
class Suffix:
    """The suffixes of B prompts after layers 1..K: expression, closing, draft, padding.

    Attributes:
        hidden: (B, T, C), output of layer K.
        queries: (B, heads, T, head_dim) of layer K; nothing to look at where K = 0.
        keys, values: (B, kv_heads, n_shared + T, head_dim) of layer K over the whole prompt; likewise.
        images: (B,) each row's image in the prefix.
        rows: which of the suffix tokens are what.
        capacity: suffix tokens that the caches shall have space for.
    """

    hidden: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    images: Tensor
    rows: QueryRows
    capacity: int

    @property
    def n_tokens(self) -> int:
        """T, tokens of the longest suffix."""
        return self.hidden.shape[1]


@dataclass(frozen=True)
class QueryRows:
    """Where the suffixes of B prompts have their parts.

    Attributes:
        expressions: (B,) tokens of each expression.
        prompts: (B,) tokens until the prompt ends.
        drafted: (B,) tokens until the draft ends.
        seeds: (B,) each row's own number.
    """

    expressions: Tensor
    prompts: Tensor
    drafted: Tensor
    seeds: Tensor

    def pick(self, kind: QueryRowKind, queries: Tensor, n_keys: int) -> tuple[Tensor, Tensor]:
        """The queries of rows of a kind, and which keys each of them attends to.

        Args:
            kind: of the rows.
            queries: (B, heads, T, head_dim) of the suffix.
            n_keys: S, of everything; the suffix comes last.

        Returns:
            (B, heads, R, head_dim), and (B, R, S) bool.
        """
        n_suffix = queries.shape[2]
        chosen = self._rows_of(kind, n_suffix)
        # The chosen rows first, in as few columns as the batch needs.
        order = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : int(chosen.sum(1).max())]
        slots = torch.arange(n_keys, device=queries.device)
        visible = (slots <= n_keys - n_suffix + order[..., None]) & chosen.gather(1, order)[..., None]
        return queries.take_along_dim(order[:, None, :, None], dim=2), visible

    def prompt_tokens(self, n_before: int, n_suffix: int) -> Tensor:
        """(B, n_before + n_suffix) bool: what is prompt, neither draft nor padding."""
        slots = torch.arange(n_before + n_suffix, device=self.prompts.device)
        return slots < n_before + self.prompts[:, None]

    def _rows_of(self, kind: QueryRowKind, n_suffix: int) -> Tensor:
        """(B, T) bool."""
        suffix = torch.arange(n_suffix, device=self.prompts.device)
        match kind:
            case "last":
                return suffix == self.prompts[:, None] - 1
            case "text":
                return suffix < self.expressions[:, None]
            case "drafted":
                return suffix == self.drafted[:, None] - 1


@dataclass(frozen=True)
class Pruned:
    """B prompts that have gone through layers K+1..L.

    Attributes:
        hidden: (B, T, C), the last layer's output for the suffixes.
        kept: the kept visual tokens.
        caches: one for each of the layers.
    """

    hidden: Tensor
    kept: KeptTokens
    caches: list[LayerCache]


@dataclass(frozen=True)
class KeptTokens:
    """The visual tokens that B prompts have left.

    Attributes:
        indices: (B, n_keep) sorted, into all visual tokens of the image.
        weights: (B, n_keep) float32, how many of the image's tokens each one stands for.
        filled: (B, n_keep) bool, which of the indices count; None where all do.
    """

    indices: Tensor
    weights: Tensor
    filled: Tensor | None = None

    @classmethod
    def from_all(cls, batch: int, n_visual: int, device: torch.device) -> KeptTokens:
        """All visual tokens of ``batch`` prompts."""
        indices = torch.arange(n_visual, device=device).expand(batch, -1)
        return cls(indices, torch.ones(1, 1, device=device).expand(batch, n_visual))

    @property
    def counts(self) -> Tensor | int:
        """How many tokens a row has left: (B, 1) where that differs from row to row."""
        return self.indices.shape[1] if self.filled is None else self.filled.sum(1, keepdim=True)

    def tolist(self) -> list[list[int]]:
        """The kept indices of every row."""
        if self.filled is None:
            rows: list[list[int]] = self.indices.tolist()
            return rows
        return [row[is_kept].tolist() for row, is_kept in zip(self.indices, self.filled, strict=True)]


@dataclass(frozen=True)
class Prefilled:
    """B prompts, read to their end and through the drafts of their answers.

    Attributes:
        rows: the prompts.
        drafts: the drafted beginning of each answer.
        logits: (B, D + 1, vocabulary) in the model's dtype, after the prompt and after each of up to D drafted tokens.
        caches: one a decoder layer.
        suffix_lengths: prompt tokens of each row behind the shared ones.
        kept: the visual tokens that stayed to the end.
    """

    rows: Sequence[Row]
    drafts: Sequence[Sequence[int]]
    logits: Tensor
    caches: list[LayerCache]
    suffix_lengths: list[int]
    kept: KeptTokens

    def broken_layer(self, row: int) -> int:
        """The layer, counted from 1, in which a row whose answer is not finite stopped being so; 0 for its input."""
        finite = [
            bool(cache.keys[row].isfinite().all() and cache.values[row].isfinite().all()) for cache in self.caches
        ]
        return finite.index(False) if False in finite else len(finite)


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
        as_drafted: it begins with the draft that was read with the prompt.
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
