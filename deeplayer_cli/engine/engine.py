"""Prompts through the language model, with visual tokens dropped on the way.

A prompt is ``P0 | visual tokens | P1 | expression and closing | draft of the answer``. Causal attention lets work be
shared: P0 is the same for every prompt, everything up to P1 for every expression of one image. ``Engine.prefix`` runs
what an image shares through layers 1..K, where K is the layer that tokens are first dropped after; ``Engine.prefill``
adds each expression, selects and finishes layers K+1..L on what is left; ``Engine.decode`` answers greedily. Position
ids stay those of the whole prompt, unless the method renumbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine import vision
from deeplayer_cli.engine.answer import Writing
from deeplayer_cli.engine.asking import Asking
from deeplayer_cli.engine.cache import LayerCache, pad_rows
from deeplayer_cli.engine.decoder import attend, causal_after, close, project, project_keys, project_queries
from deeplayer_cli.engine.draft import no_draft
from deeplayer_cli.engine.language import Language
from deeplayer_cli.engine.late import finish
from deeplayer_cli.engine.selection import selection
from deeplayer_cli.engine.stopwatch import Stopwatch, phase
from deeplayer_cli.engine.union import finish_together
from deeplayer_cli.engine.vision import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.engine.answer import Answer
    from deeplayer_cli.engine.decoder import Rotation
    from deeplayer_cli.engine.draft import Draft
    from deeplayer_cli.engine.selection import Select
    from deeplayer_cli.pruning import Evidence, Method


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
        keys, values: for each of the K layers, (N, kv_heads, S, head_dim) over P0, visual tokens and P1.
        visual: (N, n_visual, C), what layer K puts out for the visual tokens; what it takes in where ``is_open``.
        text: (N, n_p1, C), what layer K puts out for P1.
        is_open: of layer K there are keys and values only, and the survivors will finish it.
        places: (N, n_visual, 3), where each visual token lies; see ``pruning.token_places``.
        class_attention: (N, n_visual, heads), see ``vision.Encoded``.
        n_shared: S.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visual: Tensor
    text: Tensor
    is_open: bool
    places: Tensor
    class_attention: Tensor
    n_shared: int


@dataclass(frozen=True)
class Prefilled:
    """B prompts, read to their end and through the drafts of their answers.

    Attributes:
        rows: the prompts.
        drafts: the drafted beginning of each answer.
        logits: (B, D + 1, vocabulary) in the model's dtype, after the prompt and after each of up to D drafted tokens.
        caches: one a decoder layer.
        own_lengths: prompt tokens of each row behind the shared ones.
        kept: (B, n_keep) sorted indices of the visual tokens that stayed to the end.
    """

    rows: Sequence[Row]
    drafts: Sequence[Sequence[int]]
    logits: Tensor
    caches: list[LayerCache]
    own_lengths: list[int]
    kept: Tensor

    def broken_layer(self, row: int) -> int:
        """The layer, counted from 1, in which a row whose answer is not finite stopped being so; 0 for its input."""
        finite = [
            bool(cache.keys[row].isfinite().all() and cache.values[row].isfinite().all()) for cache in self.caches
        ]
        return finite.index(False) if False in finite else len(finite)


class Engine:
    """A loaded model with one pruning method.

    Args:
        checkpoint: the model, its tokenizer and its prompt.
        method: what to drop and where.
        draft: guesses at answers; they spare passes and change nothing.
        compiled: run the selection path through ``torch.compile``.
        union: rows of one image keep the union of what each of them would, see `engine.union`; then those of an image
            are prefilled together, and no others with them.
        watch: told of every phase.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        method: Method,
        *,
        draft: Draft = no_draft,
        compiled: bool = False,
        union: bool = False,
        watch: Stopwatch | None = None,
    ) -> None:
        tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
        self._model = checkpoint.model
        self._eos_id = checkpoint.eos_id
        self.method = method
        self._draft = draft
        self.watch = watch or Stopwatch()
        self._finish = partial(finish_together if union else finish, renumbers=method.renumbers)
        self._selects = [self._timed(selection(stage, compiled=compiled)) for stage in method.stages]
        self._language = Language(checkpoint.model, tokenizer.encode(prompt.before_image))
        self._after_image = torch.tensor([tokenizer.encode_piece(prompt.after_image)], device=self._language.device)
        self._closing = tokenizer.encode_piece(prompt.after_expression)

    @property
    def n_layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._language.layers)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._language.device

    @property
    def n_prompt_text(self) -> int:
        """Tokens of a prompt besides its visual tokens and its expression."""
        return self._language.n_p0 + self._after_image.shape[1] + len(self._closing)

    @phase("vision")
    @torch.inference_mode()
    def encode(self, tiles: Tensor) -> Encoded:
        """Visual tokens of images of equal tile count, (N, tiles, 3, S, S) uint8, on any device."""
        if self.method.reads_class:
            return vision.encode_with_class_attention(self._model, tiles)
        features = vision.encode(self._model, tiles)
        return Encoded(features, features.new_empty(*features.shape[:2], 0))

    @phase("prefix")
    @torch.inference_mode()
    def prefix(self, images: Encoded, places: Tensor | None = None) -> Prefix:
        """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

        Args:
            images: N of them, from ``encode``.
            places: (N, n_visual, 3), from ``pruning.token_places``; only methods that look at places need them.
        """
        language = self._language
        n_images, n_visual, _ = images.features.shape
        split, is_open = self.prefix_kind(n_visual)
        hidden = torch.cat([images.features, language.embed(self._after_image).expand(n_images, -1, -1)], dim=1)
        n_shared = language.n_p0 + hidden.shape[1]
        rotation = language.rotation(torch.arange(language.n_p0, n_shared, device=language.device)[None])
        keys, values = [], []
        for index in range(split - is_open):
            hidden, _, layer_keys, layer_values = language.run_layer(index, hidden, rotation)
            keys.append(layer_keys)
            values.append(layer_values)
        visual, text = hidden[:, :n_visual], hidden[:, n_visual:]
        if is_open:
            text, layer_keys, layer_values = self._open_layer(split - 1, hidden, n_visual, rotation)
            keys.append(layer_keys)
            values.append(layer_values)
        places = torch.empty(n_images, n_visual, 0) if places is None else places
        return Prefix(
            tuple(keys),
            tuple(values),
            visual,
            text,
            is_open,
            places.to(hidden.device),
            images.class_attention,
            n_shared,
        )

    def answer(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int) -> list[Answer]:
        """Prefill and decode; where a drafted row scored, answers that did not begin as drafted are asked anew without.

        Args:
            prefix: of the rows' images.
            rows: at least one.
            max_new_tokens: of the longest answer.
        """
        answers = self.decode(self.prefill(prefix, rows, max_new_tokens), max_new_tokens)
        slips = [number for number, answer in enumerate(answers) if not answer.as_drafted]
        if slips and self.method.reads_draft and len(prefix.keys) < self.n_layers:
            prompts = self.prefill(prefix, [rows[number] for number in slips], max_new_tokens, drafted=False)
            for number, answer in zip(slips, self.decode(prompts, max_new_tokens), strict=True):
                answers[number] = replace(answer, as_drafted=False)
        return answers

    @phase("suffix")
    @torch.inference_mode()
    def prefill(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int, *, drafted: bool = True) -> Prefilled:
        """Read each row's expression, drop what the method drops, and leave room for ``max_new_tokens``.

        Args:
            prefix: of the rows' images.
            rows: at least one.
            max_new_tokens: of the longest answer.
            drafted: read the drafts of the answers' beginnings as well.
        """
        device = self._language.device
        prompts = [[*row.expression_ids, *self._closing] for row in rows]
        drafts = [self._draft(row.expression_ids, ())[: max_new_tokens - 1] if drafted else () for row in rows]
        ids, lengths = pad_rows([[*prompt, *draft] for prompt, draft in zip(prompts, drafts, strict=True)], device)
        own_lengths = [len(prompt) for prompt in prompts]
        n_own, room = ids.shape[1], max(own_lengths) + max_new_tokens + 1  # the last slot takes what is padding
        image = torch.tensor([row.image for row in rows], device=device)
        hidden, queries, caches = self._read(prefix, image, ids, room)
        if len(caches) == self.n_layers:
            kept = torch.arange(prefix.visual.shape[1], device=device).expand(len(rows), -1)
        else:
            expressions, ends, seeds = torch.tensor(
                [(len(row.expression_ids), end, row.seed) for row, end in zip(rows, own_lengths, strict=True)],
                device=device,
            ).unbind(1)
            asking = Asking(expressions, ends, lengths, seeds)
            stages = list(zip(self.method.stages, self._selects, strict=True))
            own = (hidden, queries, caches[-1].upto(n_own)[0] if caches else queries)
            with self.watch.timing("finish"):
                hidden, kept, late = self._finish(self._language, stages, prefix, image, own, asking, room)
            caches += late
        asked = torch.tensor(own_lengths, device=device)[:, None] - 1
        asked = asked + torch.arange(max(map(len, drafts)) + 1, device=device)
        last = hidden.take_along_dim(asked.clamp(max=n_own - 1)[..., None], dim=1)
        return Prefilled(rows, drafts, self._language.logits(last), caches, own_lengths, kept)

    @phase("decode")
    @torch.inference_mode()
    def decode(self, prompts: Prefilled, max_new_tokens: int) -> list[Answer]:
        """Answer greedily until ``<|im_end|>`` or ``max_new_tokens``; the first token is never ``<|im_end|>``.

        Each pass checks a row's draft and yields one token more than was right of it, so the tokens are greedy's own.
        Writes into the prompts' caches, so a ``Prefilled`` is decoded once.
        """
        writings = [Writing(max_new_tokens, self._eos_id) for _ in prompts.rows]
        lengths, drafts = list(prompts.own_lengths), prompts.drafts
        logits = prompts.logits.float()
        logits[:, 0, self._eos_id] = -torch.inf  # min_new_tokens=1 of the official evaluation
        while True:
            best, greedy = logits.max(-1)
            probabilities = (best - logits.logsumexp(-1)).exp()
            taken = zip(writings, drafts, greedy.tolist(), probabilities.tolist(), strict=True)
            for row, (writing, draft, tokens, chances) in enumerate(taken):
                if not writing.finished:
                    lengths[row] += writing.take(draft, tokens, chances)
            if all(writing.finished for writing in writings):
                kept = prompts.kept.tolist()
                return [one.answer(kept[row], partial(prompts.broken_layer, row)) for row, one in enumerate(writings)]
            drafts = [self._next_draft(row, writing) for row, writing in zip(prompts.rows, writings, strict=True)]
            fed = [
                [] if writing.finished else [writing.token_ids[-1], *draft]
                for writing, draft in zip(writings, drafts, strict=True)
            ]
            logits = self._pass(fed, lengths, prompts).float()
            lengths = [length + bool(tokens) for length, tokens in zip(lengths, fed, strict=True)]

    def _timed(self, select: Select) -> Select:
        def timed(evidence: Evidence, n_keep: int) -> Tensor:
            with self.watch.timing("select"):
                return select(evidence, n_keep)

        return timed

    def prefix_kind(self, n_visual: int) -> tuple[int, bool]:
        """How many layers an image's tokens share, and whether the last of them is left open: what prefixes differ in.

        Nobody reads what the model's own last layer puts out for an image.
        """
        if self.method.count(n_visual) == n_visual:
            return self.n_layers, True
        first = self.method.stages[0]
        return first.drop_after_layer, first.leaves_open

    def _open_layer(
        self, index: int, hidden: Tensor, n_visual: int, rotation: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P1's output of a layer, and all keys and values: the visual tokens that survive will finish it later."""
        language, layer = self._language, self._language.layers[index]
        normed = layer.input_layernorm(hidden)
        own_keys, own_values = project_keys(layer.self_attn, normed, rotation)
        text_rotation = (rotation[0][:, n_visual:], rotation[1][:, n_visual:])
        own_queries = project_queries(layer.self_attn, normed[:, n_visual:], text_rotation)
        _, keys, values = language.behind_p0(index, own_queries, own_keys, own_values)
        n_text = own_queries.shape[2]
        visible = causal_after(language.n_p0 + n_visual, n_text, language.device)
        return close(layer, hidden[:, n_visual:], attend(own_queries, keys, values, visible)), keys, values

    def _read(self, prefix: Prefix, image: Tensor, ids: Tensor, room: int) -> tuple[Tensor, Tensor, list[LayerCache]]:
        """Own tokens ``ids`` (B, T) through layers 1..K: hidden states, layer K's queries and all caches."""
        language, n_own = self._language, ids.shape[1]
        hidden = language.embed(ids)
        queries = hidden.new_empty(len(ids), 1, n_own, 1)
        rotation = language.rotation(prefix.n_shared + torch.arange(n_own, device=language.device)[None])
        caches = []
        for index, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            hidden, queries, cache = language.run_own(
                index, hidden, rotation, keys[image], values[image], prefix.n_shared, room
            )
            caches.append(cache)
        return hidden, queries, caches

    def _next_draft(self, row: Row, writing: Writing) -> Sequence[int]:
        left = writing.limit - len(writing.token_ids)
        return () if writing.finished else self._draft(row.expression_ids, writing.token_ids)[: left - 1]

    def _pass(self, fed: Sequence[Sequence[int]], lengths: Sequence[int], prompts: Prefilled) -> Tensor:
        """Logits (B, T, vocabulary) after each of the tokens ``fed``, which follow each row's ``lengths`` own ones."""
        language = self._language
        ids, counts = pad_rows(fed, language.device)
        steps = torch.arange(ids.shape[1], device=language.device)
        own = torch.tensor(lengths, device=language.device)[:, None] + steps
        n_own = max(length + len(tokens) for length, tokens in zip(lengths, fed, strict=True))
        hidden = language.embed(ids)
        starts = {cache.own_start for cache in prompts.caches}
        rotations = {start: language.rotation(start + own) for start in starts}
        for layer, cache in zip(language.layers, prompts.caches, strict=True):
            queries, keys, values = project(layer, hidden, rotations[cache.own_start])
            cache.write_own(own.where(steps < counts[:, None], cache.n_own - 1), keys, values)
            hidden = close(layer, hidden, attend(queries, *cache.upto(n_own), cache.visible(own, n_own)))
        return language.logits(hidden)
