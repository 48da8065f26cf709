"""Prefill: the suffixes run through layers 1..K; then kept tokens, P1 and suffixes run through layers K+1..L."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.kv_cache import CacheSlots, LayerCache
from deeplayer_cli.engine.row_groups import RowGroups
from deeplayer_cli.engine.scout import run_scout
from deeplayer_cli.engine.suffixes import copy_suffixes
from deeplayer_cli.engine.types import KeptTokens, LayerView, Prefilled, Suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.types import Prefix, Pruned, Row
    from deeplayer_cli.pruning import Method


def prefill(
    language: LanguageModel,
    method: Method,
    prefix: Prefix,
    rows: Sequence[Row],
    closing: Sequence[int],
    drafts: Sequence[Sequence[int]],
    max_new_tokens: int,
    run_pruned_layers: Callable[[Prefix, Suffix], Pruned],
) -> Prefilled:
    """Run each row's suffix through all layers, and allocate caches with space for its answer.

    Args:
        language: the model.
        method: the pruning method.
        prefix: the prefix of the rows' images.
        rows: at least one.
        closing: token ids between an expression and its answer.
        drafts: the drafted beginning of each answer, as token ids.
        max_new_tokens: the largest number of tokens of an answer.
        run_pruned_layers: drops visual tokens and runs the layers after the first drop; only called for that.
    """
    device = language.device
    ids, images, query_rows = copy_suffixes(rows, closing, drafts, device)
    # One slot more than needed: decoding writes padding to the last.
    n_suffix, capacity = ids.shape[1], max(query_rows.lengths.prompts) + max_new_tokens + 1
    embeddings = language.embed(ids)
    caches: list[LayerCache]
    view_layer_k: Callable[[], LayerView]  # it copies keys and values, which only methods that prune need
    if method.scouts(prefix.n_visual):
        hidden, caches, view_layer_k = embeddings, [], partial(run_scout, language, prefix, rows, embeddings)
    else:
        hidden, caches, view_layer_k = _read_suffixes(language, prefix, rows, images, embeddings, capacity)
    if not method.prunes(prefix.n_visual):
        kept = KeptTokens.from_all(len(rows), prefix.n_visual, device)
    else:
        pruned = run_pruned_layers(prefix, Suffix(embeddings, hidden, view_layer_k(), images, query_rows, capacity))
        hidden, kept, caches = pruned.hidden, pruned.kept, [*caches, *pruned.caches]
    # Logits are needed at the last prompt token and at each drafted token: they verify the draft.
    wanted = query_rows.prompts[:, None] - 1 + torch.arange(max(map(len, drafts)) + 1, device=device)  # (B, D + 1)
    last = hidden.take_along_dim(wanted.clamp(max=n_suffix - 1)[..., None], dim=1)  # (B, D + 1, C)
    return Prefilled(rows, drafts, language.logits(last), caches, list(query_rows.lengths.prompts), kept)


def _read_suffixes(
    language: LanguageModel, prefix: Prefix, rows: Sequence[Row], images: Tensor, embeddings: Tensor, capacity: int
) -> tuple[Tensor, list[LayerCache], Callable[[], LayerView]]:
    """Run the suffixes ``embeddings`` (B, T, C) through layers 1..K.

    Returns:
        Output of layer K (B, T, C), the caches of layers 1..K, and a function that returns layer K. If K = 0, the
        output is the embeddings.
    """
    hidden, n_suffix = embeddings, embeddings.shape[1]
    queries = hidden.new_zeros(len(hidden), 1, n_suffix, 1)
    caches: list[LayerCache] = []
    image_of_row = [row.image for row in rows]
    slots = CacheSlots(RowGroups.by_image(image_of_row, language.device), prefix.n_shared, capacity, prefix.n_shared)
    numbers = torch.arange(n_suffix, device=language.device).expand(len(rows), -1)
    rotation = language.rotation(slots.suffix_start + numbers)
    step = slots.step(numbers, numbers, n_suffix, language.group, language.dtype)
    for index, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        cache = LayerCache.from_shared(slots, keys, values, image_of_row)
        hidden, queries = language.run_cached(index, hidden, rotation, cache, step)
        caches.append(cache)

    def whole_hidden() -> Tensor:
        return torch.cat([torch.cat([prefix.visual, prefix.text], dim=1)[images], hidden], dim=1)

    def view_layer_k() -> LayerView:
        # Without layers before the drop (K = 0) there are no keys. No scorer may read them there.
        keys, values = caches[-1].of_rows(n_suffix) if caches else (queries, queries)
        return LayerView(torch.cat([prefix.text_queries[images], queries], dim=2), keys, values, whole_hidden)

    return hidden, caches, view_layer_k
