"""From layer K on: each row chooses its visual tokens and goes on with them alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.cache import LayerCache
from deeplayer_cli.engine.decoder import attend, close, project, project_queries, unrotate
from deeplayer_cli.pruning import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.asking import Asking
    from deeplayer_cli.engine.decoder import Rotation
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
    """

    hidden: Tensor
    kept: Tensor

    def narrowed(self, chosen: Tensor) -> _Late:
        """Only the ``chosen`` (B, n) of the kept visual tokens, and all text."""
        text = torch.arange(self.kept.shape[1], self.hidden.shape[1], device=chosen.device)
        order = torch.cat([chosen, text.expand(len(chosen), -1)], dim=1)
        return _Late(self.hidden.take_along_dim(order[..., None], dim=1), self.kept.gather(1, chosen))


@dataclass(frozen=True)
class Numbering:
    """Position ids of prompts of which some visual tokens are left.

    Attributes:
        n_p0: tokens before the visual ones.
        n_visual: visual tokens of the whole image.
        n_text: tokens behind the visual ones.
        renumbers: leaves no gaps where tokens were dropped.
    """

    n_p0: int
    n_visual: int
    n_text: int
    renumbers: bool

    def __call__(self, kept: Tensor) -> Tensor:
        """(B, n_p0 + n_kept + n_text) ids, where the visual tokens ``kept`` (B, n_kept) are left."""
        n_kept = kept.shape[1]
        before, visual, text = (torch.arange(n, device=kept.device) for n in (self.n_p0, n_kept, self.n_text))
        ids = (before, self.n_p0 + (visual if self.renumbers else kept), self.text_start(n_kept) + text)
        return torch.cat([part.expand(len(kept), -1) for part in ids], dim=1)

    def text_start(self, n_kept: int) -> int:
        """Id of the first token behind the visual ones, of which ``n_kept`` are left."""
        return self.n_p0 + (n_kept if self.renumbers else self.n_visual)


@dataclass(frozen=True)
class Choice:
    """How B prompts choose among their visual tokens.

    Attributes:
        asking: which of the own tokens score.
        places: (B, n_visual, 3) of all visual tokens.
        class_attention: (B, n_visual, heads) to all visual tokens, see ``Evidence``.
        language: the model.
        numbering: of the prompts.
        n_own: own tokens of a prompt; they come last.
    """

    asking: Asking
    places: Tensor
    class_attention: Tensor
    language: Language
    numbering: Numbering
    n_own: int

    @classmethod
    def of(
        cls, language: Language, prefix: Prefix, image: Tensor, asking: Asking, n_own: int, *, renumbers: bool
    ) -> Choice:
        """Of prompts with ``n_own`` own tokens, about the images ``image`` (B,) of a prefix."""
        n_text = prefix.text.shape[1] + n_own
        numbering = Numbering(language.n_p0, prefix.visual.shape[1], n_text, renumbers)
        return cls(asking, prefix.places[image], prefix.class_attention[image], language, numbering, n_own)

    @property
    def everything(self) -> Tensor:
        """(B, n_visual), what is left before anything is dropped."""
        return torch.arange(self.numbering.n_visual, device=self.places.device).expand(len(self.places), -1)

    def first(
        self, by: tuple[Stage, Select], prefix: Prefix, image: Tensor, own: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Indices (B, n_keep) into all visual tokens, by what layer K saw; ``own`` as in `finish`."""
        hidden, queries, keys = own
        shared = torch.cat([_features(by, prefix.visual), _features(by, prefix.text)], dim=1)
        return self(by, queries, keys, torch.cat([shared[image], _features(by, hidden)], dim=1), self.everything)

    def __call__(self, by: tuple[Stage, Select], queries: Tensor, keys: Tensor, hidden: Tensor, kept: Tensor) -> Tensor:
        """Indices (B, n_keep) into the tokens ``kept`` (B, n) so far; ``hidden`` is of these and the text."""
        stage, select = by
        queries = queries[:, :, -self.n_own :]
        if stage.scorer.rows is not None and not stage.scorer.rotary:
            cos, sin = self.language.rotation(self.numbering(kept))
            queries = unrotate(queries, (cos[:, -self.n_own :], sin[:, -self.n_own :]))
            keys = unrotate(keys, (cos, sin))
        queries, visible = self.asking.pick(stage.scorer.rows, queries, keys.shape[2])
        n_visual = kept.shape[1]
        evidence = Evidence(
            queries,
            keys,
            visible,
            self.asking.seeds,
            self.language.n_p0,
            n_visual,
            features=hidden[:, :n_visual],
            text_features=hidden[:, n_visual:],
            places=self.places.take_along_dim(kept[..., None], dim=1),
            class_attention=self.class_attention.take_along_dim(kept[..., None], dim=1),
        )
        return select(evidence, stage.count(self.numbering.n_visual))


def finish(
    language: Language,
    stages: Sequence[tuple[Stage, Select]],
    prefix: Prefix,
    image: Tensor,
    own: tuple[Tensor, Tensor, Tensor],
    asking: Asking,
    room: int,
    *,
    renumbers: bool,
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
        renumbers: whether the method does.

    Returns:
        The last layer's output for the own tokens (B, n_own, C), the kept visual tokens (B, n_keep), the caches.
    """
    hidden, _, _ = own
    n_own = hidden.shape[1]
    choose = Choice.of(language, prefix, image, asking, n_own, renumbers=renumbers)
    numbering = choose.numbering
    waiting = list(stages)
    kept = choose.everything if waiting[0][0].reads_next else choose.first(waiting.pop(0), prefix, image, own)
    visual = survivors(language, prefix, image, kept)
    late = _Late(torch.cat([visual, prefix.text[image], hidden], dim=1), kept)

    def rotation(kept: Tensor) -> Rotation:
        return language.rotation(numbering(kept)[:, language.n_p0 :])

    caches = []
    for index in range(len(prefix.keys), len(language.layers)):
        if _is_due(waiting, index, reads_next=True):
            projected = project(language.layers[index], late.hidden, rotation(late.kept))
            queries, keys, _ = language.behind_p0(index, *projected)
            by = waiting.pop(0)
            late = late.narrowed(choose(by, queries, keys, _features(by, late.hidden), late.kept))
        hidden, queries, keys, values = language.run_layer(index, late.hidden, rotation(late.kept))
        late = replace(late, hidden=hidden)
        own_start = numbering.text_start(late.kept.shape[1]) + prefix.text.shape[1]
        cache = LayerCache.empty(len(image), keys.shape[2] - n_own, room, like=keys, own_start=own_start)
        cache.write(0, keys, values)
        caches.append(cache)
        if _is_due(waiting, index + 1, reads_next=False):
            by = waiting.pop(0)
            late = late.narrowed(choose(by, queries, keys, _features(by, late.hidden), late.kept))
    return late.hidden[:, -n_own:], late.kept, caches


def _is_due(waiting: Sequence[tuple[Stage, Select]], layer: int, *, reads_next: bool) -> bool:
    if not waiting:
        return False
    stage, _ = waiting[0]
    return stage.drop_after_layer == layer and stage.reads_next == reads_next


def _features(by: tuple[Stage, Select], hidden: Tensor) -> Tensor:
    """Hidden states (B, n, C) as far as the selector wants them: C = 0 where it does not."""
    stage, _ = by
    return hidden if stage.selector.needs_features else hidden[..., :0]


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
