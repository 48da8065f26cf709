"""One random image with several expressions, for the engine and for transformers itself."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

from deeplayer_cli.bench import fastv
from deeplayer_cli.bench.limits import TimeLimit
from deeplayer_cli.cost.flops import decode_flops, head_flops, kv_bytes, prefill_flops, union_flops, vision_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.engine import Engine, Row, union_of_rows
from deeplayer_cli.engine.drafting import no_draft
from deeplayer_cli.pruning import Budget, Method, Options, Selector, build, token_places
from deeplayer_cli.reference.generate import generate, prompt_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    from deeplayer_cli.bench.limits import PeakRates
    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.engine import Answer, Draft, Prefix
    from deeplayer_cli.pruning import ScorerInputs, Selection, Stage

_WORDS = ("red", "blue", "green", "small", "large", "circle", "square", "star")


class Subject:
    """An image of random pixels and several expressions about it, four words each.

    Args:
        checkpoint: the model.
        n_tiles: number of tiles of the image.
        n_expressions: number of expressions about it.
        read: gives the image's tiles (n_tiles, 3, side, side) uint8, for every run anew; by default they lie ready.
    """

    def __init__(
        self, checkpoint: Checkpoint, n_tiles: int, n_expressions: int = 1, read: Callable[[], Tensor] | None = None
    ) -> None:
        self.checkpoint = checkpoint
        self._compiled = checkpoint.model.device.type == "cuda"
        self.n_visual = n_tiles * checkpoint.tokens_per_tile
        side, generator = checkpoint.tiling.tile_size, torch.Generator().manual_seed(0)
        tiles = torch.randint(0, 256, (n_tiles, 3, side, side), dtype=torch.uint8, generator=generator)
        self._read = read or (lambda: tiles)
        self._places = token_places((n_tiles, 1), n_tiles, self.n_visual)[None]
        expressions = encoded_expressions(checkpoint, n_expressions)
        self.rows = [Row(0, expression_ids, seed) for seed, expression_ids in enumerate(expressions)]
        self._shape = ModelShape.from_config(checkpoint.model.config).without_hidden_pairs()
        self._vision_flops = vision_flops(self._shape, n_tiles)
        self._references: dict[tuple[str, float, int], list[list[int]]] = {}

    def engine(self, method: str, keep: float = 1.0, draft: Draft = no_draft) -> Engine:
        """Make an engine with a method at its default layer, compiled where `ground` compiles: on CUDA."""
        return Engine(self.checkpoint, self._method(method, keep), draft=draft, compiled=self._compiled)

    def reads_draft(self, method: str, keep: float) -> bool:
        """Whether a method scores with the drafted answer; then its kept tokens depend on the draft."""
        return any(stage.scorer.rows == "drafted" for stage in self._method(method, keep).stages)

    def prefix(self, engine: Engine) -> Prefix:
        """Run the engine from pixels to the prefix."""
        return engine.prefix(engine.encode(self._read()[None]), self._places)

    def answers(self, engine: Engine, n_new: int) -> list[Answer]:
        """Run the engine from pixels to answers of up to ``n_new`` tokens, with all expressions in one batch."""
        return engine.answer(self.prefix(engine), self.rows, n_new)

    def generate(self, row: Row, n_new: int) -> list[int]:
        """Run transformers' own greedy ``generate()`` from pixels to token ids, for one expression."""
        return generate(self.checkpoint, self._read(), row.expression_ids, n_new)

    def fastv_as_written(self, keep: float) -> list[int]:
        """Compute the first answer token with `bench.fastv`, for the first expression."""
        method = self._method("fastv", keep)  # no engine is built here, because this call is timed
        assert method.layer is not None  # noqa: S101 - it prunes
        ids, n_keep = self.prompt_ids(self.rows[0]), method.count(self.n_visual)
        tiles = self._read().to(self.checkpoint.model.device)
        image_token = self.checkpoint.image_token_id
        return [fastv.first_token(self.checkpoint.model, ids, tiles, method.layer, n_keep, image_token)]

    def flops(self, method: str, keep: float) -> int:
        """FLOPs of the engine from pixels to the first token of every answer, by `cost.flops`."""
        lengths = PromptLengths.from_checkpoint(self.checkpoint, self.n_visual, len(self.rows[0].expression_ids))
        lengths, pruning = replace(lengths, draft=0), self._method(method, keep)  # the cases with FLOPs have no drafts
        return self._vision_flops + prefill_flops(self._shape, lengths, pruning, len(self.rows))

    def limit(
        self, method: str, keep: float, n_new: int, rates: PeakRates, *, prefill_flops: int | None = None
    ) -> TimeLimit:
        """The smallest possible time of all answers of ``n_new`` tokens, from pixels on, one token a pass.

        Args:
            method: name of the method.
            keep: its share of visual tokens.
            n_new: number of tokens of an answer.
            rates: peak rates of the device.
            prefill_flops: FLOPs up to the first tokens, if they are not those of the method; 0 to leave this part out.
        """
        pruning, n = self._method(method, keep), len(self.rows)
        lengths = PromptLengths.from_checkpoint(self.checkpoint, self.n_visual, len(self.rows[0].expression_ids))
        weights = rates.bytes_per_number * self._shape.language_parameters
        held = n * kv_bytes(self._shape, lengths, rates.bytes_per_number, pruning)
        decode = n * decode_flops(self._shape, lengths, n_new, pruning)
        answers = TimeLimit.of_passes(rates, n_new - 1, decode, weights, held)
        if prefill_flops == 0:
            return answers
        first = self.flops(method, keep) if prefill_flops is None else prefill_flops
        return TimeLimit.of_passes(rates, 1, first, weights, 0).then(answers)

    @property
    def generate_flops(self) -> int:
        """FLOPs of transformers from pixels to the first token of every answer, without shared work."""
        text, length = self._shape.text, len(self.prompt_ids(self.rows[0]))
        layer = text.query_flops(length) + text.key_flops(length) + text.causal_flops(length)
        language = text.layers * layer + head_flops(self._shape)
        return len(self.rows) * (self._vision_flops + language)

    def union_engine(self, method: str, keep: float, union: float) -> Engine:
        """Make an engine whose rows keep the share ``union`` of the visual tokens together, whatever the scores are."""
        (stage,) = self._method(method, keep).stages
        pooled = Method(method, (replace(stage, selector=PoolSelector(int(union * self.n_visual))),))
        return Engine(self.checkpoint, pooled, compiled=self._compiled, pruned_layers=union_of_rows)

    def union_flops(self, method: str, keep: float, union: float) -> int:
        """FLOPs of a `union_engine` from pixels to the first token of every answer."""
        lengths = PromptLengths.from_checkpoint(self.checkpoint, self.n_visual, len(self.rows[0].expression_ids))
        pruning, n_union = self._method(method, keep), int(union * self.n_visual)
        return self._vision_flops + union_flops(self._shape, lengths, pruning, n_union, len(self.rows))

    def reference(self, method: str, keep: float, n_new: int) -> list[list[int]]:
        """Token ids of all answers from transformers' ``generate()``, without the tokens that a method drops."""
        key = (method, keep, n_new)
        if key not in self._references:
            self._references[key] = self.reference_of(self.engine(method, keep), n_new)
        return self._references[key]

    def reference_of(self, engine: Engine, n_new: int) -> list[list[int]]:
        """Token ids of all answers from ``generate()``, without the tokens that ``engine`` drops."""
        return [
            self._generate_unseen(row, n_new, engine.method, answer.kept)
            for row, answer in zip(self.rows, self.answers(engine, 1), strict=True)
        ]

    def _method(self, name: str, keep: float) -> Method:
        n_layers: int = self.checkpoint.model.config.text_config.num_hidden_layers
        return build(name, Options(Budget(keep), grounding_layer=self.checkpoint.grounding_layer), n_layers)

    def _generate_unseen(self, row: Row, n_new: int, method: Method, kept: Sequence[int]) -> list[int]:
        """Run ``generate()``, but hide all visual tokens that are not ``kept`` from the layers after the first drop."""
        if not method.stages:
            return self.generate(row, n_new)
        visual = [i for i, token in enumerate(self.prompt_ids(row)) if token == self.checkpoint.image_token_id]
        dropped = [visual[i] for i in sorted(set(range(self.n_visual)) - set(kept))]
        with _unseen(self.checkpoint.model.model.language_model.layers[method.stages[0].drop_after_layer :], dropped):
            return self.generate(row, n_new)

    def prompt_ids(self, row: Row) -> list[int]:
        """Token ids of the whole prompt of an expression."""
        return prompt_ids(self.checkpoint, self.n_visual, row.expression_ids)


def encoded_expressions(model: Checkpoint | Layout, n: int) -> list[list[int]]:
    """Token ids of ``n`` expressions of four words each."""
    texts = [f"the {_WORDS[i % 8]} {_WORDS[i // 8 % 8]} {_WORDS[i // 64 % 8]}" for i in range(n)]
    return [model.tokenizer.encode_expression(text) for text in texts]


@dataclass(frozen=True)
class KnownDraft:
    """Drafts as long as those of the template, of which a known share is right.

    A model with random weights would accept no draft of the template. So the drafts come from known answers. The engine
    verifies them like any other draft.

    Attributes:
        answers: token ids of the answers, by token ids of the expression.
        opening: number of tokens that the template drafts at the beginning of an answer.
        share: share of right drafts; the others are wrong from their first token on.
    """

    answers: dict[tuple[int, ...], list[int]]
    opening: int
    share: float

    def __call__(self, expression_ids: Sequence[int], written: Sequence[int]) -> Sequence[int]:
        """See ``Draft``. It drafts the opening, and after every number the two tokens of a separator."""
        done, known = len(written), self.answers[tuple(expression_ids)]
        if done == 0:
            return self._spoilt(known[: self.opening], number=0)
        number, into = divmod(done - self.opening, 3)
        if number < 0 or into != 1:
            return ()
        return self._spoilt(known[done : done + 2], number=number + 1)

    def _spoilt(self, guess: list[int], number: int) -> list[int]:
        is_right = int((number + 1) * self.share) > int(number * self.share)
        return guess if is_right else [abs(token - 1) for token in guess]


@dataclass(frozen=True)
class PoolSelector(Selector):
    """Gives the union of the rows' kept tokens a fixed size: rows keep overlapping parts of a pool.

    With random weights, the size of a real union would mean nothing.

    Attributes:
        n_pool: number of visual tokens in the pool, spread evenly over the image.
    """

    compilable = True
    n_pool: int

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """See ``Selector``; only the shape of ``scores`` is read."""
        n_rows, n_visual = scores.shape
        pool = torch.arange(self.n_pool, device=scores.device) * n_visual // self.n_pool
        starts = torch.linspace(0, self.n_pool - n_keep, n_rows, device=scores.device).long()
        return pool[starts[:, None] + torch.arange(n_keep, device=scores.device)]


@dataclass(frozen=True)
class SelectionProbe:
    """The inputs of one real selection, and its result.

    Attributes:
        stage: the method's only stage.
        inputs: the inputs of one prompt.
        n_keep: number of tokens to keep.
        kept: indices of the kept tokens, one list of ``n_keep``.
    """

    stage: Stage
    inputs: ScorerInputs
    n_keep: int
    kept: list[list[int]]

    @classmethod
    def read(cls, subject: Subject, method: str, keep: float) -> SelectionProbe:
        """Run a prompt through an engine with a method of one stage, and record its selection."""
        (stage,) = subject.engine(method, keep).method.stages
        given: list[tuple[ScorerInputs, int]] = []

        class ListeningSelector(Selector):
            needs = stage.selector.needs

            def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor | Selection:
                given.append((inputs, n_keep))
                return stage.selector(scores, inputs, n_keep)

        listening = Method(method, (replace(stage, selector=ListeningSelector()),))
        engine = Engine(subject.checkpoint, listening)
        kept = engine.prefill(subject.prefix(engine), subject.rows, 1).kept.tolist()
        return cls(stage, *given[0], kept)


@contextmanager
def _unseen(layers: Sequence[LlamaDecoderLayer], dropped: Sequence[int]) -> Iterator[None]:
    """Mask the ``dropped`` prompt positions as keys in decoder layers while the context is open."""

    def hide(
        layer: LlamaDecoderLayer, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], Any]:
        hidden = args[0]
        # transformers 5.24 renamed the argument, so the cache is found by its type.
        (cache,) = (value for value in kwargs.values() if isinstance(value, Cache))
        n_past = cache.get_seq_length(layer.self_attn.layer_idx)
        n_new = hidden.shape[1]
        seen = torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=hidden.device).tril(n_past)
        seen[:, dropped] = False
        own = torch.arange(n_new, device=hidden.device)
        seen[own, n_past + own] = True  # every token attends to itself, so that masked rows stay finite
        return args, kwargs | {"attention_mask": seen[None, None]}

    hooks = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
