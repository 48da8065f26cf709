"""The layers after the first drop, over kept tokens, P1 and suffix: layers K+1..L, or all layers for a scout's choice.

Two functions have the signature of `PrunedLayers`. With `each_row`, every prompt continues with its own kept tokens.
With `union_of_rows`, all prompts about an image continue with the union of their kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

from deeplayer_cli.engine.decoder import attend, attention_output_and_mlp, causal_after, project, project_queries
from deeplayer_cli.engine.kv_cache import CacheSlots, LayerCache
from deeplayer_cli.engine.row_groups import RowGroups
from deeplayer_cli.engine.selection import Chooser
from deeplayer_cli.engine.types import KeptTokens, LayerView, Pruned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.decoder import Rotation
    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.selection import StageSelector
    from deeplayer_cli.engine.types import Prefix, Suffix
    from deeplayer_cli.pruning import Method, Selection


class PrunedLayers(Protocol):
    """Drops visual tokens and runs the layers after the first drop, as `each_row` and `union_of_rows` do."""

    def __call__(
        self,
        language: LanguageModel,
        method: Method,
        selects: Sequence[StageSelector],
        prefix: Prefix,
        suffix: Suffix,
    ) -> Pruned:
        """Run the layers after the first drop, and drop visual tokens there and at every later stage.

        Args:
            language: the model.
            method: the method.
            selects: the method's stages, in the order of their layers.
            prefix: the prefix of the rows' images.
            suffix: the suffixes of the rows after layer K.
        """


@dataclass(frozen=True)
class _PrunedBatch:
    """B prompts between two layers.

    Attributes:
        hidden: (B, n_kept + n_p1 + T, C), hidden states of kept tokens, P1 and suffix.
        kept: which visual tokens the first ``n_kept`` are.
    """

    hidden: Tensor
    kept: KeptTokens

    def narrowed(self, selection: Selection) -> _PrunedBatch:
        """The batch with only the selected visual tokens; all text stays."""
        n_kept = self.kept.indices.shape[1]
        text = torch.arange(n_kept, self.hidden.shape[1], device=self.hidden.device)
        order = torch.cat([selection.indices, text.expand(len(selection.indices), -1)], dim=1)  # (B, n_keep + n_text)
        hidden = self.hidden.take_along_dim(order[..., None], dim=1)  # (B, n_keep + n_text, C)
        if selection.features is not None:
            hidden = torch.cat([selection.features, hidden[:, selection.indices.shape[1] :]], dim=1)
        return _PrunedBatch(hidden, _narrow(self.kept, selection)).trimmed()

    def trimmed(self) -> _PrunedBatch:
        """The batch without the columns of visual tokens that are padding in every row."""
        if self.kept.filled is None:
            return self
        indices, weights, filled = self.kept.indices, self.kept.weights, self.kept.filled
        n_kept, most = indices.shape[1], int(filled.sum(1).max())
        parts = (part[:, :most] for part in (indices, weights, filled))
        return _PrunedBatch(torch.cat([self.hidden[:, :most], self.hidden[:, n_kept:]], dim=1), KeptTokens(*parts))


@dataclass(frozen=True)
class _Slots:
    """The S slots of B prompts in the layers between two drops: P0, kept tokens, P1 and suffix.

    Attributes:
        rotation: RoPE of all slots after P0.
        visible: (B, 1, S - n_p0, S) bool, the attention mask of the slots after P0; None for a causal mask.
        cached: the slots of the caches of these layers.
    """

    rotation: Rotation
    visible: Tensor | None
    cached: CacheSlots

    @classmethod
    def from_kept(cls, language: LanguageModel, choose: Chooser, kept: KeptTokens) -> _Slots:
        """The slots of prompts that keep these visual tokens."""
        rotation = language.rotation(choose.positions(kept.indices)[:, language.n_p0 :])
        n_text, n_suffix = choose.positions.n_text, choose.suffix.n_tokens
        n_before = language.n_p0 + kept.indices.shape[1] + n_text - n_suffix
        suffix_start = choose.positions.text_start(kept.indices.shape[1]) + n_text - n_suffix
        groups = RowGroups.alone(len(kept.indices), language.device)
        cached = CacheSlots(groups, n_before, choose.suffix.capacity, suffix_start)
        if kept.filled is None:
            return cls(rotation, None, cached)
        before, behind = (kept.filled.new_ones(len(kept.filled), n) for n in (language.n_p0, n_text))
        filled = torch.cat([before, kept.filled, behind], dim=1)
        n_p0, n_slots = language.n_p0, filled.shape[1]
        causal = causal_after(n_p0, n_slots - n_p0, language.device)
        # A softmax over no key is not finite, so every slot, empty ones too, attends to itself.
        own = torch.eye(n_slots, dtype=torch.bool, device=language.device)[n_p0:]
        cached = replace(cached, filled=filled[:, :-n_suffix])
        return cls(rotation, causal & filled[:, None, None] | own, cached)


def _narrow(kept: KeptTokens, selection: Selection) -> KeptTokens:
    """The tokens that are still kept after a selection; the selection's indices point into ``kept``."""
    weights = kept.weights.gather(1, selection.indices) if selection.weights is None else selection.weights
    filled = None
    if selection.counts is not None:
        filled = torch.arange(selection.indices.shape[1], device=weights.device) < selection.counts[:, None]
    return KeptTokens(kept.indices.gather(1, selection.indices), weights, filled)


def each_row(
    language: LanguageModel, method: Method, selects: Sequence[StageSelector], prefix: Prefix, suffix: Suffix
) -> Pruned:
    """A `PrunedLayers`: every row continues with its own kept tokens."""
    choose = Chooser.from_prompts(language, prefix, suffix, renumbers=method.renumbers)
    waiting = list(selects)
    batch = _first_batch(language, method, choose, waiting, prefix, suffix)
    slots = _Slots.from_kept(language, choose, batch.kept)
    caches = []
    for index in range(method.stages[0].drop_after_layer, len(language.layers)):
        if _is_due(waiting, index, reads_next_layer=True):
            # Score with the next layer: project its input once for the scores, drop tokens, then run the layer itself.
            queries, *own = project(language.layers[index], batch.hidden, slots.rotation)
            view = _view(batch, queries, *language.prepend_p0(index, own))
            batch = batch.narrowed(choose(waiting.pop(0), view, batch.kept))
            slots = _Slots.from_kept(language, choose, batch.kept)
        n_visual = batch.kept.indices.shape[1]
        hidden, queries, keys, values = _run_layer(
            language, method, index, batch.hidden, n_visual, slots.rotation, slots.visible
        )
        batch = replace(batch, hidden=hidden)
        caches.append(LayerCache.from_rows(slots.cached, keys, values))
        if _is_due(waiting, index + 1, reads_next_layer=False):
            batch = batch.narrowed(choose(waiting.pop(0), _view(batch, queries, keys, values), batch.kept))
            slots = _Slots.from_kept(language, choose, batch.kept)
    choose.refuse_faults(caches)
    return Pruned(batch.hidden[:, -suffix.n_tokens :], batch.kept, caches)


def union_of_rows(
    language: LanguageModel, method: Method, selects: Sequence[StageSelector], prefix: Prefix, suffix: Suffix
) -> Pruned:
    """A `PrunedLayers` for methods of one stage and rows of one image: all rows continue with the union of kept tokens.

    The union and P1 run through layers K+1..L once for all expressions. A row sees more tokens than it selected, so its
    answer depends on which other expressions share the image.
    """
    (select,) = selects
    choose = Chooser.from_prompts(language, prefix, suffix, renumbers=method.renumbers)
    everything = KeptTokens.from_all(len(suffix.images), prefix.n_visual, language.device)
    kept = choose(select, suffix.layer_k, everything).indices.unique()[None]  # (1, n_union)
    image, positions = suffix.images[:1], choose.positions(kept)
    suffix_start = choose.positions.text_start(kept.shape[1]) + prefix.text.shape[1]
    shared, hidden = _first_hidden(language, method, prefix, suffix, image, kept)  # shared: one copy for all rows
    shared_rotation = language.rotation(positions[:, language.n_p0 : -suffix.n_tokens])
    images = [0] * len(hidden)
    n_shared = positions.shape[1] - suffix.n_tokens
    slots = CacheSlots(RowGroups.by_image(images, language.device), n_shared, suffix.capacity, suffix_start)
    numbers = torch.arange(suffix.n_tokens, device=language.device).expand(len(hidden), -1)
    suffix_rotation = language.rotation(suffix_start + numbers)
    step = slots.step(numbers, numbers, suffix.n_tokens, language.group, language.dtype)
    caches = []
    for index in range(method.stages[0].drop_after_layer, len(language.layers)):
        shared, _, keys, values = _run_layer(language, method, index, shared, kept.shape[1], shared_rotation, None)
        cache = LayerCache.from_shared(slots, keys, values, images)
        hidden, _ = language.run_cached(index, hidden, suffix_rotation, cache, step)
        caches.append(cache)
    choose.refuse_faults(caches)
    rows = kept.expand(len(suffix.images), -1)
    return Pruned(hidden, KeptTokens(rows, torch.ones_like(rows, dtype=torch.float32)), caches)


def _finish_layer_k(language: LanguageModel, method: Method, prefix: Prefix, image: Tensor, kept: Tensor) -> Tensor:
    """Output of layer K for the kept tokens; a deferred layer runs for them now.

    Args:
        language: the model.
        method: the method; it says whether layer K is deferred.
        prefix: the prefix of N images.
        image: (B,) index of each row's image.
        kept: (B, n_keep) indices of the kept tokens.

    Returns:
        Hidden states (B, n_keep, C).
    """
    visual = prefix.visual[image[:, None], kept]  # (B, n_keep, C), input of layer K if it is deferred
    if not method.defers_layer_k(len(language.layers)):
        return visual
    index = len(prefix.keys) - 1
    layer, positions = language.layers[index], language.n_p0 + kept
    queries = project_queries(layer.self_attn, layer.input_layernorm(visual), language.rotation(positions))
    # Kept tokens attend to all visual tokens here, because the drop comes after this layer. P1 comes after them.
    keys, values = (part[index][image, :, : language.n_p0 + prefix.n_visual] for part in (prefix.keys, prefix.values))
    visible = torch.arange(keys.shape[2], device=kept.device) <= positions[..., None]  # (B, n_keep, S)
    return attention_output_and_mlp(layer, visual, attend(queries, keys, values, visible[:, None]))


def _first_batch(
    language: LanguageModel,
    method: Method,
    choose: Chooser,
    waiting: list[StageSelector],
    prefix: Prefix,
    suffix: Suffix,
) -> _PrunedBatch:
    """The prompts after the first drop; or before it, if the first stage scores with the next layer."""
    kept = KeptTokens.from_all(len(suffix.images), prefix.n_visual, language.device)
    merged = None
    if not waiting[0].stage.reads_next_layer:
        selection = choose(waiting.pop(0), suffix.layer_k, kept)
        kept, merged = _narrow(kept, selection), selection.features
    parts = _first_hidden(language, method, prefix, suffix, suffix.images, kept.indices)
    hidden = torch.cat(parts, dim=1)  # (B, n_keep + n_p1 + T, C)
    if merged is not None:
        hidden = torch.cat([merged, hidden[:, merged.shape[1] :]], dim=1)
    return _PrunedBatch(hidden, kept).trimmed()


def _first_hidden(
    language: LanguageModel, method: Method, prefix: Prefix, suffix: Suffix, image: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Input of the first layer after the first drop; for a scout's choice, this is layer 1.

    Args:
        language: the model.
        method: the method.
        prefix: the prefix of N images.
        suffix: the suffixes of B prompts.
        image: (B,) or (1,), the image of each row of ``kept``.
        kept: (B, n_keep) or (1, n_keep), indices of the kept tokens.

    Returns:
        Kept tokens and P1 (B or 1, n_keep + n_p1, C), and the suffixes (B, T, C).
    """
    if method.scout is None:
        visual = _finish_layer_k(language, method, prefix, image, kept)
    else:
        visual = prefix.embeddings[image[:, None], kept]
    return torch.cat([visual, prefix.text[image]], dim=1), suffix.hidden


def _run_layer(
    language: LanguageModel,
    method: Method,
    index: int,
    hidden: Tensor,
    n_visual: int,
    rotation: Rotation,
    visible: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `LanguageModel.run_layer`; the layer updates the first ``n_visual`` tokens only if the method does."""
    if index < method.updated_layers(len(language.layers)):
        return language.run_layer(index, hidden, rotation, visible)
    frozen, text = hidden[:, :n_visual], hidden[:, n_visual:]
    normed = language.normalise_frozen(frozen)
    text, queries, keys, values = language.run_frozen_layer(index, normed, text, rotation, visible)
    return torch.cat([frozen, text], dim=1), queries, keys, values


def _view(batch: _PrunedBatch, queries: Tensor, keys: Tensor, values: Tensor) -> LayerView:
    return LayerView(queries, keys, values, lambda: batch.hidden)


def _is_due(waiting: Sequence[StageSelector], layer: int, *, reads_next_layer: bool) -> bool:
    if not waiting:
        return False
    stage = waiting[0].stage
    return stage.drop_after_layer == layer and stage.reads_next_layer == reads_next_layer
