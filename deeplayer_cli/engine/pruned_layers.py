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
from deeplayer_cli.engine.selection import Prompts
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
    """B prompts between two layers. P0, kept tokens, P1 and suffix have S slots, the same ones until the next drop.

    Attributes:
        hidden: (B, n_kept + n_p1 + T, C), hidden states of kept tokens, P1 and suffix.
        kept: which visual tokens the first ``n_kept`` are.
        rotation: RoPE of all slots after P0.
        visible: (B, 1, S - n_p0, S) bool, the attention mask of the slots after P0; None for a causal mask.
        slots: of the caches of the layers until the next drop.
    """

    hidden: Tensor
    kept: KeptTokens
    rotation: Rotation
    visible: Tensor | None
    slots: CacheSlots

    @classmethod
    def from_kept(cls, prompts: Prompts, hidden: Tensor, kept: KeptTokens) -> _PrunedBatch:
        """The prompts with the visual tokens ``kept``, which ``hidden`` (B, n_kept + n_p1 + T, C) begins with."""
        if kept.filled is not None:  # columns that are padding in every row go
            n_kept, kept = kept.indices.shape[1], kept.trimmed()
            hidden = torch.cat([hidden[:, : kept.indices.shape[1]], hidden[:, n_kept:]], dim=1)
        n_p0, n_text, n_suffix = prompts.positions.n_p0, prompts.positions.n_text, prompts.suffix.n_tokens
        n_kept, device = kept.indices.shape[1], hidden.device
        rotation = prompts.language.rotation(prompts.positions(kept.indices)[:, n_p0:])
        n_before = n_p0 + n_kept + n_text - n_suffix
        suffix_start = prompts.positions.text_start(n_kept) + n_text - n_suffix
        groups = RowGroups.alone(len(hidden), device)
        slots = CacheSlots(groups, n_before, prompts.suffix.capacity, suffix_start)
        if kept.filled is None:
            return cls(hidden, kept, rotation, None, slots)
        before, behind = (kept.filled.new_ones(len(hidden), n) for n in (n_p0, n_text))
        filled = torch.cat([before, kept.filled, behind], dim=1)  # (B, S)
        causal = causal_after(n_p0, filled.shape[1] - n_p0, device)
        # A softmax over no key is not finite, so every slot, empty ones too, attends to itself.
        own = torch.eye(filled.shape[1], dtype=torch.bool, device=device)[n_p0:]
        slots = replace(slots, filled=filled[:, :-n_suffix])
        return cls(hidden, kept, rotation, causal & filled[:, None, None] | own, slots)

    def drop(self, prompts: Prompts, select: StageSelector, layer: tuple[Tensor, Tensor, Tensor]) -> _PrunedBatch:
        """The prompts with only the visual tokens that a stage selects; all text stays.

        Args:
            prompts: as they were before the first drop.
            select: the stage.
            layer: queries, keys and values of the layer that the stage scores with.
        """
        selection = prompts.select(select, LayerView(*layer, lambda: self.hidden), self.kept)
        n_kept = self.kept.indices.shape[1]
        text = torch.arange(n_kept, self.hidden.shape[1], device=self.hidden.device)
        order = torch.cat([selection.indices, text.expand(len(self.hidden), -1)], dim=1)  # (B, n_keep + n_text)
        hidden = _merged(selection, self.hidden.take_along_dim(order[..., None], dim=1))
        return self.from_kept(prompts, hidden, self.kept.narrowed(selection))


def each_row(
    language: LanguageModel, method: Method, selects: Sequence[StageSelector], prefix: Prefix, suffix: Suffix
) -> Pruned:
    """A `PrunedLayers`: every row continues with its own kept tokens."""
    prompts = Prompts.from_parts(language, prefix, suffix, renumbers=method.renumbers)
    # By the 0-based index of the layer that follows the drop, which is the number of the layer before it.
    drops = {select.stage.drop_after_layer: select for select in selects}
    first = min(drops)
    scores_with_k = None if drops[first].stage.reads_next_layer else drops.pop(first)
    batch, caches = _first_batch(method, prompts, scores_with_k), []
    for index in range(first, len(language.layers)):
        if index in drops:
            if drops[index].stage.reads_next_layer:
                queries, *own = project(language.layers[index], batch.hidden, batch.rotation)
                keys, values = language.prepend_p0(index, own)
            batch = batch.drop(prompts, drops[index], (queries, keys, values))
        n_kept = batch.kept.indices.shape[1]
        hidden, queries, keys, values = _run_layer(
            language, method, index, batch.hidden, n_kept, batch.rotation, batch.visible
        )
        batch = replace(batch, hidden=hidden)
        caches.append(LayerCache.from_rows(batch.slots, keys, values))
    prompts.refuse_faults(caches)
    return Pruned(batch.hidden[:, -suffix.n_tokens :], batch.kept, caches)


def union_of_rows(
    language: LanguageModel, method: Method, selects: Sequence[StageSelector], prefix: Prefix, suffix: Suffix
) -> Pruned:
    """A `PrunedLayers` for methods of one stage and rows of one image: all rows continue with the union of kept tokens.

    The union and P1 run through layers K+1..L once for all expressions. A row sees more tokens than it selected, so its
    answer depends on which other expressions share the image.
    """
    (select,) = selects
    prompts = Prompts.from_parts(language, prefix, suffix, renumbers=method.renumbers)
    everything = KeptTokens.from_all(len(suffix.images), prefix.n_visual, language.device)
    kept = prompts.select(select, suffix.layer_k, everything).indices.unique()[None]  # (1, n_union)
    image, positions = suffix.images[:1], prompts.positions(kept)
    suffix_start = prompts.positions.text_start(kept.shape[1]) + prefix.text.shape[1]
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
    prompts.refuse_faults(caches)
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


def _first_batch(method: Method, prompts: Prompts, select: StageSelector | None) -> _PrunedBatch:
    """The prompts before the first layer that this module runs.

    Args:
        method: the method.
        prompts: before the first drop.
        select: the first stage, if it scores with layer K or a scout: then only the kept tokens go on. None if it
            scores with the next layer, which needs all visual tokens.
    """
    prefix, suffix = prompts.prefix, prompts.suffix
    kept = KeptTokens.from_all(len(suffix.images), prefix.n_visual, prompts.language.device)
    selection = None if select is None else prompts.select(select, suffix.layer_k, kept)
    kept = kept if selection is None else kept.narrowed(selection)
    parts = _first_hidden(prompts.language, method, prefix, suffix, suffix.images, kept.indices)
    hidden = torch.cat(parts, dim=1)  # (B, n_kept + n_p1 + T, C)
    return _PrunedBatch.from_kept(prompts, hidden if selection is None else _merged(selection, hidden), kept)


def _merged(selection: Selection, hidden: Tensor) -> Tensor:
    """Hidden states (B, n_keep + n_text, C) of a selection and the text, with those of merged tokens, if there are."""
    if selection.features is None:
        return hidden
    return torch.cat([selection.features, hidden[:, selection.indices.shape[1] :]], dim=1)


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
