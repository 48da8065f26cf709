"""Prompts through the language model, with visual tokens dropped half way.

A prompt is ``P0 | visual tokens | P1 | expression and closing``. Causal attention lets work be shared: P0 is the same
for every prompt, everything up to P1 for every expression of one image. ``Engine.prefix`` runs what an image shares
through layers 1..K, ``Engine.prefill`` adds each expression, selects with layer K's attention and finishes layers
K+1..L on what is left, ``Engine.decode`` answers greedily. Position ids stay those of the whole prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine import vision
from deeplayer_cli.engine.cache import LayerCache, pad_rows
from deeplayer_cli.engine.decoder import attend, causal_after, close, project
from deeplayer_cli.engine.selection import selection
from deeplayer_cli.pruning import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.engine.decoder import Rotation
    from deeplayer_cli.pruning import Method


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
        hidden: (N, S, C), the outputs of layer K.
        places: (N, n_visual, 3), where each visual token lies; see ``pruning.token_places``.
        n_visual: visual tokens of each image.
        n_keep: how many of them layers K+1..L will see; all of them where nothing is pruned, and then K = L.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    hidden: Tensor
    places: Tensor
    n_visual: int
    n_keep: int

    @property
    def n_layers(self) -> int:
        """K, the number of layers that saw every visual token."""
        return len(self.keys)


@dataclass(frozen=True)
class Prefilled:
    """B prompts, read to their end.

    Attributes:
        logits: (B, vocabulary) in the model's dtype, for the first answer token.
        caches: one a decoder layer.
        own_lengths: (B,) tokens of each row behind the shared ones.
        n_own: the longest of them.
        n_prompt_shared: S, so that a row's next position id is S plus its own length.
        kept: (B, n_keep) sorted indices of the visual tokens that stayed.
    """

    logits: Tensor
    caches: list[LayerCache]
    own_lengths: Tensor
    n_own: int
    n_prompt_shared: int
    kept: Tensor

    def broken_layer(self, row: int) -> int:
        """The layer, counted from 1, in which a row whose answer is not finite stopped being so; 0 for its input."""
        finite = [
            bool(cache.keys[row].isfinite().all() and cache.values[row].isfinite().all()) for cache in self.caches
        ]
        return finite.index(False) if False in finite else len(finite)


@dataclass(frozen=True)
class Answer:
    """Greedy token ids, the closing ``<|im_end|>`` left out, each with the probability the model gave it."""

    token_ids: list[int]
    probabilities: list[float]


class Engine:
    """A loaded model with one pruning method.

    Args:
        checkpoint: the model, its tokenizer and its prompt.
        method: what to drop and where.
        compiled: run the selection path through ``torch.compile``.
    """

    def __init__(self, checkpoint: Checkpoint, method: Method, *, compiled: bool = False) -> None:
        self._model = checkpoint.model
        self._decoder = checkpoint.model.model.language_model
        self._eos_id = checkpoint.eos_id
        self._stage = method.stage
        self._select = selection(method.stage, compiled=compiled) if method.stage else None
        tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
        self._closing = tokenizer.encode_piece(prompt.after_expression)
        with torch.inference_mode():
            self._p0 = self._embed(tokenizer.encode(prompt.before_image))
            self._p1 = self._embed(tokenizer.encode_piece(prompt.after_image))
            self._p0_cache = self._run_p0()

    @property
    def n_layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._decoder.layers)

    @property
    def n_prompt_text(self) -> int:
        """Tokens of a prompt besides its visual tokens and its expression."""
        return self._p0.shape[1] + self._p1.shape[1] + len(self._closing)

    @torch.inference_mode()
    def encode(self, tiles: Tensor) -> Tensor:
        """Visual tokens of images of equal tile count: (N, tiles, 3, S, S) uint8 -> (N, n_visual, C)."""
        return vision.encode(self._model, tiles)

    @torch.inference_mode()
    def prefix(self, features: Tensor, places: Tensor | None = None) -> Prefix:
        """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

        Args:
            features: (N, n_visual, C), from ``encode``.
            places: (N, n_visual, 3), from ``pruning.token_places``; only methods that look at places need them.
        """
        n_images, n_visual, _ = features.shape
        places = torch.empty(n_images, n_visual, 0) if places is None else places
        n_keep = self._stage.budget.count(n_visual) if self._stage else n_visual
        split = self._stage.drop_after_layer if self._stage and n_keep < n_visual else self.n_layers
        p0, p1 = (part.expand(n_images, -1, -1) for part in (self._p0, self._p1))
        hidden = torch.cat([p0, features, p1], dim=1)
        rotation = self._rotation(hidden, torch.arange(hidden.shape[1], device=hidden.device)[None])
        all_keys, all_values = [], []
        for layer in self._decoder.layers[:split]:
            queries, keys, values = project(layer, hidden, rotation)
            hidden = close(layer, hidden, attend(queries, keys, values, None))
            all_keys.append(keys)
            all_values.append(values)
        return Prefix(tuple(all_keys), tuple(all_values), hidden, places.to(hidden.device), n_visual, n_keep)

    @torch.inference_mode()
    def prefill(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int) -> Prefilled:
        """Read each row's expression, drop what its method drops, and leave room for ``max_new_tokens``."""
        ids, lengths = pad_rows([[*row.expression_ids, *self._closing] for row in rows], self._device)
        image = torch.tensor([row.image for row in rows], device=self._device)
        n_shared, n_own = prefix.hidden.shape[1], ids.shape[1]
        room = n_own + max_new_tokens

        caches: list[LayerCache] = []
        hidden = self._decoder.embed_tokens(ids)
        queries = hidden.new_empty(len(rows), 1, n_own, 1)
        rotation = self._rotation(hidden, torch.arange(n_shared, n_shared + n_own, device=self._device)[None])
        visible = causal_after(n_shared, n_own, self._device)
        for layer, keys, values in zip(self._decoder.layers, prefix.keys, prefix.values, strict=False):
            cache = LayerCache.empty(len(rows), n_shared, room, like=keys)
            cache.write(0, keys[image], values[image])
            queries, *own = project(layer, hidden, rotation)
            cache.write(n_shared, *own)
            hidden = close(layer, hidden, attend(queries, *cache.upto(n_own), visible))
            caches.append(cache)

        if prefix.n_layers < self.n_layers:
            keys = caches[-1].upto(n_own)[0] if caches else queries
            kept = self._select_tokens(prefix, rows, image, queries, keys, lengths)
            hidden, late_caches = self._finish(prefix, image, kept, hidden, room)
            caches += late_caches
        else:
            kept = torch.arange(prefix.n_visual, device=self._device).expand(len(rows), -1)
        last = hidden[torch.arange(len(rows), device=self._device), lengths - 1]
        return Prefilled(self._logits(last), caches, lengths, n_own, n_shared, kept)

    @torch.inference_mode()
    def decode(self, prompts: Prefilled, max_new_tokens: int) -> list[Answer]:
        """Answer greedily until ``<|im_end|>`` or ``max_new_tokens``; the first token is never ``<|im_end|>``.

        Writes into the prompts' caches, so a ``Prefilled`` is decoded once.
        """
        logits = prompts.logits.float()
        logits[:, self._eos_id] = -torch.inf  # min_new_tokens=1 of the official evaluation
        tokens, probabilities = [], []
        finished = torch.zeros(len(logits), dtype=torch.bool, device=self._device)
        for step in range(max_new_tokens):
            token = logits.argmax(-1)
            tokens.append(token)
            probabilities.append(logits.softmax(-1).gather(-1, token[:, None])[:, 0])
            finished |= token == self._eos_id
            if finished.all() or step == max_new_tokens - 1:
                break
            logits = self._step(token, prompts, step).float()
        return self._until_eos(torch.stack(tokens, 1).tolist(), torch.stack(probabilities, 1).tolist())

    def _select_tokens(
        self, prefix: Prefix, rows: Sequence[Row], image: Tensor, queries: Tensor, keys: Tensor, lengths: Tensor
    ) -> Tensor:
        """Indices (B, n_keep) of the visual tokens that the stage keeps; ``queries`` cover the rows' own tokens."""
        assert self._stage is not None and self._select is not None  # noqa: S101 - a prefix is split by a stage only
        n_shared, n_own = prefix.hidden.shape[1], queries.shape[2]
        own = torch.arange(n_own, device=self._device)
        asked = {  # (B, n_own) bool: the rows of the prompt that ask
            None: own < own.new_zeros(len(rows), 1),
            "last": own == lengths[:, None] - 1,
            "text": own < lengths[:, None] - len(self._closing),
        }[self._stage.scorer.rows]
        # The asking rows first, in as few columns as the batch needs: no other query ever meets the keys.
        order = asked.int().argsort(dim=1, descending=True, stable=True)[:, : int(asked.sum(1).max())]
        slots = torch.arange(n_shared + n_own, device=self._device)
        visible = (slots <= n_shared + order[..., None]) & asked.gather(1, order)[..., None]
        picked = queries.gather(2, order[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3]))
        seeds = torch.tensor([row.seed for row in rows], device=self._device)
        start = self._p0.shape[1]
        needed = slice(None) if self._stage.selector.needs_features else slice(0)
        features = prefix.hidden[:, start : start + prefix.n_visual, needed][image]
        evidence = Evidence(picked, keys, visible, seeds, start, prefix.n_visual, features, prefix.places[image])
        return self._select(evidence, prefix.n_keep)

    def _finish(
        self, prefix: Prefix, image: Tensor, kept: Tensor, hidden: Tensor, room: int
    ) -> tuple[Tensor, list[LayerCache]]:
        """Layers K+1..L over P0 (cached), the kept visual tokens, P1 and the rows' own tokens ``hidden`` (B, T, C)."""
        batch, n_own = hidden.shape[:2]
        n_p0, n_p1 = self._p0.shape[1], self._p1.shape[1]
        after_visual = n_p0 + prefix.n_visual
        visual = prefix.hidden[image[:, None], n_p0 + kept]
        hidden = torch.cat([visual, prefix.hidden[image, after_visual:], hidden], dim=1)
        text_positions = torch.arange(after_visual, after_visual + n_p1 + n_own, device=self._device)
        rotation = self._rotation(hidden, torch.cat([n_p0 + kept, text_positions.expand(batch, -1)], dim=1))
        visible = causal_after(n_p0, hidden.shape[1], self._device)
        n_shared = n_p0 + prefix.n_keep + n_p1
        caches = []
        for index in range(prefix.n_layers, self.n_layers):
            layer, p0 = self._decoder.layers[index], self._p0_cache[index]
            cache = LayerCache.empty(batch, n_shared, room, like=p0[0])
            cache.write(0, *p0)
            queries, *own = project(layer, hidden, rotation)
            cache.write(n_p0, *own)
            hidden = close(layer, hidden, attend(queries, *cache.upto(n_own), visible))
            caches.append(cache)
        return hidden[:, -n_own:], caches

    def _step(self, token: Tensor, prompts: Prefilled, step: int) -> Tensor:
        """Logits (B, vocabulary) after one more ``token`` (B,) in every row."""
        own_lengths = prompts.own_lengths + step
        n_own = prompts.n_own + step + 1
        hidden = self._decoder.embed_tokens(token[:, None])
        rotation = self._rotation(hidden, (prompts.n_prompt_shared + own_lengths)[:, None])
        for layer, cache in zip(self._decoder.layers, prompts.caches, strict=True):
            queries, keys, values = project(layer, hidden, rotation)
            cache.write_next(own_lengths, keys, values)
            attended = attend(queries, *cache.upto(n_own), cache.visible(own_lengths + 1, n_own))
            hidden = close(layer, hidden, attended)
        return self._logits(hidden[:, 0])

    def _run_p0(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of P0 in every layer: it precedes the image, so they never change."""
        hidden = self._p0
        rotation = self._rotation(hidden, torch.arange(hidden.shape[1], device=self._device)[None])
        cache = []
        for layer in self._decoder.layers:
            queries, keys, values = project(layer, hidden, rotation)
            hidden = close(layer, hidden, attend(queries, keys, values, None))
            cache.append((keys, values))
        return cache

    def _until_eos(self, tokens: list[list[int]], probabilities: list[list[float]]) -> list[Answer]:
        ends = [row.index(self._eos_id) if self._eos_id in row else len(row) for row in tokens]
        return [Answer(t[:end], p[:end]) for t, p, end in zip(tokens, probabilities, ends, strict=True)]

    def _rotation(self, hidden: Tensor, position_ids: Tensor) -> Rotation:
        cos, sin = self._decoder.rotary_emb(hidden, position_ids)
        return cos, sin

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._model.lm_head(self._decoder.norm(hidden))
        return logits

    def _embed(self, ids: Sequence[int]) -> Tensor:
        embedded: Tensor = self._decoder.embed_tokens(torch.tensor([ids], device=self._device))
        return embedded

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._decoder.embed_tokens.weight.device
        return device
