"""From layer K on: each row chooses its visual tokens and goes on with them alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.cache import LayerCache
from deeplayer_cli.engine.decoder import attend, close, project, project_queries, unrotate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.asking import Asking
    from deeplayer_cli.engine.engine import Prefix
    from deeplayer_cli.engine.language import Language
    from deeplayer_cli.engine.selection import Select
    from deeplayer_cli.pruning import Stage


@dataclass(frozen=True)
class _Late:
    """B prompts between two layers: kept visual tokens, P1, own tokens.

    Attributes:
        hidden: (B, n_kept + n_p1 + n_own, C).
        kept: (B, n_kept) which visual tokens of the image they are.
        positions: (B, n_kept + n_p1 + n_own) position ids.
    """

    hidden: Tensor
    kept: Tensor
    positions: Tensor

    @property
    def visual(self) -> Tensor:
        """(B, n_kept, C)."""
        return self.hidden[:, : self.kept.shape[1]]

    def narrowed(self, chosen: Tensor) -> _Late:
        """Only the ``chosen`` (B, n) of the kept visual tokens, and all text."""
        text = torch.arange(self.kept.shape[1], self.hidden.shape[1], device=chosen.device)
        order = torch.cat([chosen, text.expand(len(chosen), -1)], dim=1)
        hidden = self.hidden.take_along_dim(order[..., None], dim=1)
        return _Late(hidden, self.kept.gather(1, chosen), self.positions.gather(1, order))


@dataclass(frozen=True)
class Choice:
    """How B prompts choose among their visual tokens.

    Attributes:
        asking: which of the own tokens score.
        places: (B, n_visual, 3) of all visual tokens.
        language: the model.
        n_own: own tokens of a prompt; they come last.
    """

    asking: Asking
    places: Tensor
    language: Language
    n_own: int

    def __call__(
        self, by: tuple[Stage, Select], queries: Tensor, keys: Tensor, features: Tensor, kept: Tensor
    ) -> Tensor:
        """Indices (B, n_keep) into the tokens ``kept`` (B, n) so far; ``features`` are theirs."""
        stage, select = by
        queries = queries[:, :, -self.n_own :]
        if stage.scorer.rows is not None and not stage.scorer.rotary:
            cos, sin = self.language.rotation(self._positions(kept, keys.shape[2]))
            queries = unrotate(queries, (cos[:, -self.n_own :], sin[:, -self.n_own :]))
            keys = unrotate(keys, (cos, sin))
        evidence = self.asking.evidence(
            stage.scorer.rows,
            queries,
            keys,
            visual_start=self.language.n_p0,
            features=features,
            places=self.places.take_along_dim(kept[..., None], dim=1),
        )
        return select(evidence, stage.count(self.places.shape[1]))

    def _positions(self, kept: Tensor, n_keys: int) -> Tensor:
        """Position ids (B, S) of a prompt whose visual tokens are ``kept`` (B, n)."""
        n_before, n_visual = self.language.n_p0, self.places.shape[1]
        before = torch.arange(n_before, device=kept.device).expand(len(kept), -1)
        n_after = n_keys - n_before - kept.shape[1]
        after = n_before + n_visual + torch.arange(n_after, device=kept.device).expand(len(kept), -1)
        return torch.cat([before, n_before + kept, after], dim=1)


def finish(
    language: Language,
    stages: Sequence[tuple[Stage, Select]],
    prefix: Prefix,
    image: Tensor,
    own: tuple[Tensor, Tensor, Tensor],
    asking: Asking,
    room: int,
) -> tuple[Tensor, Tensor, list[LayerCache]]:
    """Drop visual tokens after layer K, and wherever later stages do, and run layers K+1..L.

    Args:
        language: the model.
        stages: the method's, each with its selection path.
        prefix: what the rows' images share.
        image: (B,) each row's image in the prefix.
        own: of the rows' own tokens, what layer K puts out (B, n_own, C) and its queries (B, heads, n_own, head_dim);
            and the keys (B, kv_heads, S + n_own, head_dim) of the whole prompt.
        asking: which of the own tokens score.
        room: own tokens that the caches shall have room for.

    Returns:
        The last layer's output for the own tokens (B, n_own, C), the kept visual tokens (B, n_keep), the caches.
    """
    hidden, queries, keys = own
    n_visual, n_own = prefix.visual.shape[1], hidden.shape[1]
    choose = Choice(asking, prefix.places[image], language, n_own)
    waiting = list(stages)
    kept = torch.arange(n_visual, device=language.device).expand(len(image), -1)
    if not waiting[0][0].reads_next:
        first = waiting.pop(0)
        kept = choose(first, queries, keys, wanted_features(first, prefix.visual)[image], kept)
    visual = survivors(language, prefix, image, kept)
    text_positions = torch.arange(language.n_p0 + n_visual, prefix.n_shared + n_own, device=language.device)
    late = _Late(
        torch.cat([visual, prefix.text[image], hidden], dim=1),
        kept,
        torch.cat([language.n_p0 + kept, text_positions.expand(len(kept), -1)], dim=1),
    )
    caches = []
    for index in range(len(prefix.keys), len(language.layers)):
        if _is_due(waiting, index, reads_next=True):
            projected = project(language.layers[index], late.hidden, language.rotation(late.positions))
            queries, keys, _ = language.behind_p0(index, *projected)
            by = waiting.pop(0)
            late = late.narrowed(choose(by, queries, keys, wanted_features(by, late.visual), late.kept))
        hidden, queries, keys, values = language.run_layer(index, late.hidden, language.rotation(late.positions))
        late = replace(late, hidden=hidden)
        cache = LayerCache.empty(len(image), keys.shape[2] - n_own, room, like=keys)
        cache.write(0, keys, values)
        caches.append(cache)
        if _is_due(waiting, index + 1, reads_next=False):
            by = waiting.pop(0)
            late = late.narrowed(choose(by, queries, keys, wanted_features(by, late.visual), late.kept))
    return late.hidden[:, -n_own:], late.kept, caches


def _is_due(waiting: Sequence[tuple[Stage, Select]], layer: int, *, reads_next: bool) -> bool:
    if not waiting:
        return False
    stage, _ = waiting[0]
    return stage.drop_after_layer == layer and stage.reads_next == reads_next


def wanted_features(by: tuple[Stage, Select], visual: Tensor) -> Tensor:
    """Hidden states (B, n, C) as far as the selector wants them: C = 0 where it does not."""
    stage, _ = by
    return visual if stage.selector.needs_features else visual[..., :0]


def survivors(language: Language, prefix: Prefix, image: Tensor, kept: Tensor) -> Tensor:
    """What layer K puts out for the kept visual tokens, (B, n_keep, C); where it was left open, they finish it now."""
    visual = prefix.visual[image[:, None], kept]
    if not prefix.is_open:
        return visual
    index = len(prefix.keys) - 1
    layer, positions = language.layers[index], language.n_p0 + kept
    queries = project_queries(layer.self_attn, layer.input_layernorm(visual), language.rotation(positions))
    keys, values = (
        part[index][image, :, : language.n_p0 + prefix.visual.shape[1]] for part in (prefix.keys, prefix.values)
    )
    visible = torch.arange(keys.shape[2], device=kept.device) <= positions[..., None]
    return close(layer, visual, attend(queries, keys, values, visible[:, None]))
