"""Attention rows: what some tokens of a prompt attend to in every layer, read in one pass without any drop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.kv_cache import CacheSlots, LayerCache
from deeplayer_cli.engine.row_groups import RowGroups
from deeplayer_cli.engine.suffixes import copy_suffixes
from deeplayer_cli.pruning import AttentionScorer, ScorerInputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.types import Prefix, QueryRows, Row
    from deeplayer_cli.pruning import QueryRowKind


@dataclass(frozen=True)
class AttentionRows:
    """The attention of B prompts in all L layers, as a mean over heads and over the query rows of a kind.

    Attributes:
        by_kind: for each kind of query rows, (L, B, S) float32 over all S keys of the prompt: P0, visual tokens, P1,
            suffix. Over the keys of a prompt it sums to 1; what comes after the query row has attention 0.
        visual: the slice of the visual tokens among the keys.
    """

    by_kind: Mapping[QueryRowKind, Tensor]
    visual: slice

    def on_visual(self, kind: QueryRowKind) -> Tensor:
        """The attention to the visual tokens, (L, B, n_visual)."""
        return self.by_kind[kind][..., self.visual]


def attention_rows(
    language: LanguageModel,
    prefix: Prefix,
    rows: Sequence[Row],
    closing: Sequence[int],
    drafts: Sequence[Sequence[int]],
    kinds: Sequence[QueryRowKind],
) -> AttentionRows:
    """Read the attention of the query rows in every layer; the scores are those of `AttentionScorer`.

    Args:
        language: the model.
        prefix: the prefix of the rows' images, through all layers.
        rows: at least one.
        closing: token ids between an expression and its answer.
        drafts: the drafted beginning of each answer, as token ids.
        kinds: the kinds of query rows; not ``question``, which begins before the suffix. ``text`` needs an expression
            in every row.
    """
    if len(prefix.keys) != len(language.layers):
        raise ValueError("attention rows need a prefix through all layers: that of a method that drops nothing")
    device = language.device
    ids, _, query_rows = copy_suffixes(rows, closing, drafts, device)
    n_suffix = ids.shape[1]
    hidden = language.embed(ids)
    numbers = torch.arange(n_suffix, device=device).expand(len(rows), -1)
    rotation = language.rotation(prefix.n_shared + numbers)
    slots = CacheSlots(RowGroups.alone(len(rows), device), prefix.n_shared, n_suffix, prefix.n_shared)
    step = slots.step(numbers, numbers, n_suffix, language.group, language.dtype)
    found: dict[QueryRowKind, list[Tensor]] = {kind: [] for kind in kinds}
    for index, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        cache = LayerCache.from_shared(slots, keys, values, [row.image for row in rows])
        hidden, queries = language.run_cached(index, hidden, rotation, cache, step)
        for kind, layers in found.items():
            layers.append(_mean_attention(query_rows, kind, queries, cache.keys))
    visual = slice(language.n_p0, language.n_p0 + prefix.n_visual)
    return AttentionRows({kind: torch.stack(layers) for kind, layers in found.items()}, visual)


def _mean_attention(rows: QueryRows, kind: QueryRowKind, queries: Tensor, keys: Tensor) -> Tensor:
    """The attention to every key (B, S), from the suffix's queries (B, heads, T, head_dim)."""
    n_suffix, n_keys = queries.shape[2], keys.shape[2]
    picked, visible = rows.pick(kind, queries, n_keys, n_suffix)
    prompt_tokens = rows.prompt_tokens(n_keys - n_suffix, n_suffix)
    # To the scorer, all keys are visual tokens here, so that it scores all of them.
    return AttentionScorer(kind)(
        ScorerInputs(rows.seeds, 0, n_keys, prompt_tokens, queries=picked, visible=visible, keys=keys)
    )
