"""The suites of benchmark cases."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.bench.photographs import Photographs
from deeplayer_cli.bench.subject import KnownDraft, SelectionProbe, Subject, encoded_expressions
from deeplayer_cli.bench.timing import Case
from deeplayer_cli.bench.vllm_peer import VllmPeer, picture
from deeplayer_cli.cost.shape import PromptLengths
from deeplayer_cli.engine.compiler import Compiler
from deeplayer_cli.engine.drafting import no_draft
from deeplayer_cli.engine.selection import StageSelector
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.tiling import tile_image
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.engine import Draft, Prefilled
    from deeplayer_cli.models.internvl.model import ModelConfig
    from deeplayer_cli.models.internvl.tiling import Tiling

_METHOD = "deep-layer"
_UNION = 0.3  # share of the visual tokens that all expressions keep together
_PHOTOGRAPHS = 48
_RIGHT = (0.0, 0.5, 1.0)  # shares of right drafts


@dataclass(frozen=True)
class BenchPlan:
    """What the cases of a suite vary.

    Attributes:
        tiles: numbers of tiles of the image.
        keeps: shares of visual tokens to keep.
        methods: the methods that prune; ``select`` and unions always use ``deep-layer``.
        layer: the methods' layer, for ``roofline``; None for their own.
        expressions: numbers of expressions about the image; ``prefill`` and ``select`` always use one.
        n_new: number of answer tokens in ``decode`` and ``e2e``.
        rows: numbers of rows of a batch, for the decoding of ``gpu``.
    """

    tiles: tuple[int, ...] = (4, 7)
    keeps: tuple[float, ...] = (0.1,)
    expressions: tuple[int, ...] = (1, 7)
    n_new: int = 24
    methods: tuple[str, ...] = (_METHOD,)
    layer: int | None = None
    rows: tuple[int, ...] = (1, 8, 64)

    @property
    def prunings(self) -> list[tuple[str, str, float]]:
        """(name, method, keep) for each pruning; the unpruned model comes first."""
        pruned = [(f"{method} {keep:g}", method, keep) for method in self.methods for keep in self.keeps]
        return [("unpruned", "none", 1.0), *pruned]


def prefill(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """From pixels to the first token: transformers, the engine unpruned and pruned, FastV as published, fewer tiles."""
    for n_tiles in plan.tiles:
        subject = Subject(checkpoint, n_tiles)
        group = f"{subject.n_visual} visual tokens"
        yield _generate(subject, group, 1)
        for name, method, keep in plan.prunings:
            yield _ask(subject, group, name, method, keep, 1)
        for keep in plan.keeps:
            yield _ask(subject, group, f"fastv {keep:g}", "fastv", keep, 1)
            yield _fastv(subject, group, keep)
        if n_tiles > 1:
            yield _ask(Subject(checkpoint, 1), group, "unpruned, 1 tile", "none", 1.0, 1)


def share(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """From pixels to the first tokens of all expressions about one image; the unpruned engine has a prefix cache."""
    for subject, group in _subjects(checkpoint, plan):
        yield _generate(subject, group, 1)
        for name, method, keep in plan.prunings:
            yield _ask(subject, group, name, method, keep, 1)
        for keep in plan.keeps:
            if len(subject.rows) > 1 and keep < _UNION < keep * len(subject.rows):
                yield _unite(subject, group, keep)


def e2e(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """From pixels to whole answers, without drafts, and with drafts of which a known share is right."""
    for subject, group in _subjects(checkpoint, plan):
        yield _generate(subject, group, plan.n_new)
        for name, method, keep in plan.prunings:
            yield _ask(subject, group, name, method, keep, plan.n_new)
            for right in _shares(subject, method, keep, _RIGHT):
                draft = _draft(subject, method, keep, plan.n_new, right)
                yield _ask(subject, group, f"{name}, drafts {right:.0%} right", method, keep, plan.n_new, draft)


def decode(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """Only decoding: prefill is done before and is not timed."""
    for subject, group in _subjects(checkpoint, plan):
        for name, method, keep in plan.prunings:
            yield _decode(subject, group, name, method, keep, plan.n_new)
            for right in _shares(subject, method, keep, _RIGHT):
                draft = _draft(subject, method, keep, plan.n_new, right)
                yield _decode(subject, group, f"{name}, drafts {right:.0%} right", method, keep, plan.n_new, draft)


def select(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """Only the selection, compared with the whole prefill that it is part of."""
    for n_tiles in plan.tiles:
        subject = Subject(checkpoint, n_tiles)
        for keep in plan.keeps:
            group = f"{subject.n_visual} visual tokens, keep {keep:g}"
            yield _ask(subject, group, "the whole prefill", _METHOD, keep, 1)
            yield _select(subject, group, "top-k", _METHOD, keep, compiled=False)
            yield _select(subject, group, "top-k, compiled", _METHOD, keep, compiled=True)
            yield _select(subject, group, "independent set", "deep-layer-mis", keep, compiled=False)


def pipeline(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """From image files to tiles, with as many threads as `ground` uses."""
    del plan
    workers = min(8, os.cpu_count() or 1)
    photographs = Photographs.make(_PHOTOGRAPHS, checkpoint.tiling, workers)
    group = f"{_PHOTOGRAPHS} JPEGs of 640 x 480, {counted(photographs.n_tiles, 'tile')} each, {workers} threads"
    yield Case(group, "Pillow alone", lambda _: photographs.bare(), photographs.delivered)
    yield Case(group, "the pipeline", lambda _: photographs.delivered(), photographs.bare)


def peer(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[Case]:
    """From a picture to whole answers, beside vLLM; the engine with drafts that are all wrong and all right."""
    side, most = checkpoint.tiling.tile_size, max(plan.tiles)
    pictures = {n_tiles: picture(n_tiles, side) for n_tiles in plan.tiles}
    vllm = VllmPeer(checkpoint, most, plan.n_new)
    tiling = replace(checkpoint.tiling, max_tiles=max(1, most - 1))
    for n_tiles, image in pictures.items():
        for n in plan.expressions:
            subject = Subject(checkpoint, n_tiles, n, partial(_tiles, image, tiling))
            group = _group(subject)
            yield _vllm(vllm, subject, group, image, plan.n_new)
            for name, method, keep in plan.prunings:
                for right in _shares(subject, method, keep, (0.0, 1.0)):
                    draft = _draft(subject, method, keep, plan.n_new, right)
                    yield _ask(subject, group, f"{name}, drafts {right:.0%} right", method, keep, plan.n_new, draft)


SUITES: Mapping[str, Callable[[Checkpoint, BenchPlan], Iterator[Case]]] = {
    "prefill": prefill,
    "share": share,
    "decode": decode,
    "select": select,
    "e2e": e2e,
    "pipeline": pipeline,
    "peer": peer,
}


def require_positions(model: Checkpoint | Layout, config: ModelConfig, plan: BenchPlan) -> None:
    """Check that a model has positions for the longest prompt and its answer.

    Args:
        model: gives tokenizer and prompt.
        config: the model's configuration.
        plan: numbers of tiles, expressions and answer tokens.

    Raises:
        DeeplayerError: it has too few.
    """
    n_positions: int = config.text_config.max_position_embeddings
    n_visual = max(plan.tiles) * config.image_seq_length
    longest = max(map(len, encoded_expressions(model, max(*plan.expressions, *plan.rows))))
    needed = PromptLengths.from_checkpoint(model, n_visual, longest).length(n_visual) + plan.n_new
    if needed > n_positions:
        raise DeeplayerError(
            f"bench --tiles {max(plan.tiles)}: the prompt and its answer need {needed} positions, but this model has "
            f"{n_positions}: use smaller --tiles or --new-tokens"
        )


def required_share(suite: str, dtype: torch.dtype) -> float:
    """The share of its tokens that must be equal for an answer to be right.

    Kernels in 16 bits round differently from batch to batch. What is no answer, as in ``select`` and ``pipeline``, must
    be equal in everything.
    """
    return 0.8 if dtype.itemsize == 2 and suite not in ("select", "pipeline") else 1.0


def _subjects(checkpoint: Checkpoint, plan: BenchPlan) -> Iterator[tuple[Subject, str]]:
    for n_tiles in plan.tiles:
        for n in plan.expressions:
            subject = Subject(checkpoint, n_tiles, n)
            yield subject, _group(subject)


def _group(subject: Subject) -> str:
    n = len(subject.rows)
    return f"{subject.n_visual} visual tokens, {n} expression{'s' if n > 1 else ''}"


def _tiles(image: Image, tiling: Tiling) -> Tensor:
    return torch.from_numpy(tile_image(image, tiling))


def _vllm(vllm: VllmPeer, subject: Subject, group: str, image: Image, n_new: int) -> Case:
    return Case(
        group,
        f"vLLM {vllm.version}, unpruned",
        lambda _: vllm.answers(image, [subject.prompt_ids(row) for row in subject.rows]),
        partial(subject.reference, "none", 1.0, n_new),
        prepare=vllm.forget,
    )


def _generate(subject: Subject, group: str, n_new: int) -> Case:
    """Transformers' ``generate()`` for the first expression. Every other expression would take the same time again."""
    n = len(subject.rows)
    return Case(
        group,
        "transformers generate()" if n == 1 else f"transformers generate(), 1 run times {n}",
        lambda _: subject.generate(subject.rows[0], n_new),
        lambda: subject.answers(subject.engine("none"), n_new)[0].token_ids,
        times=n,
        flops=subject.generate_flops if n_new == 1 else None,
    )


def _ask(
    subject: Subject, group: str, name: str, method: str, keep: float, n_new: int, draft: Draft = no_draft
) -> Case:
    engine = subject.engine(method, keep, draft)

    def run(_: object) -> list[list[int]]:
        return [answer.token_ids for answer in subject.answers(engine, n_new)]

    flops = subject.flops(method, keep) if n_new == 1 else None
    limit = partial(subject.limit, method, keep, n_new) if draft is no_draft else None
    return Case(group, name, run, partial(subject.reference, method, keep, n_new), flops=flops, limit=limit)


def _fastv(subject: Subject, group: str, keep: float) -> Case:
    return Case(
        group,
        f"fastv {keep:g}, eager as published",
        lambda _: subject.fastv_as_written(keep),
        lambda: subject.reference("fastv", keep, 1)[0],
    )


def _unite(subject: Subject, group: str, keep: float) -> Case:
    engine, flops = subject.union_engine(_METHOD, keep, _UNION), subject.union_flops(_METHOD, keep, _UNION)

    def run(_: object) -> list[list[int]]:
        return [answer.token_ids for answer in subject.answers(engine, 1)]

    return Case(
        group,
        f"{_METHOD} {keep:g}, union {_UNION:.0%}",
        run,
        partial(subject.reference_of, engine, 1),
        flops=flops,
        limit=partial(subject.limit, _METHOD, keep, 1, prefill_flops=flops),
    )


def _decode(
    subject: Subject, group: str, name: str, method: str, keep: float, n_new: int, draft: Draft = no_draft
) -> Case:
    engine = subject.engine(method, keep, draft)
    prefix = subject.prefix(engine)

    def run(prompts: Prefilled) -> list[list[int]]:
        return [answer.token_ids for answer in engine.decode(prompts, n_new)]

    return Case(
        group,
        name,
        run,
        partial(subject.reference, method, keep, n_new),
        prepare=lambda: engine.prefill(prefix, subject.rows, n_new),
        limit=partial(subject.limit, method, keep, n_new, prefill_flops=0) if draft is no_draft else None,
    )


def _select(subject: Subject, group: str, name: str, method: str, keep: float, *, compiled: bool) -> Case:
    probe = SelectionProbe.read(subject, method, keep)
    choose = StageSelector(probe.stage, method, compiler=Compiler() if compiled else None)
    return Case(group, name, lambda _: choose(probe.inputs, probe.n_keep)[0].indices.tolist(), lambda: probe.kept)


def _shares(subject: Subject, method: str, keep: float, shares: Sequence[float]) -> Sequence[float]:
    """The shares of right drafts to time; none for a method that chooses other tokens with another draft."""
    return () if subject.reads_draft(method, keep) else shares


def _draft(subject: Subject, method: str, keep: float, n_new: int, right: float) -> Draft:
    template = TemplateDraft.from_tokenizer(subject.checkpoint.tokenizer)
    answers = subject.reference(method, keep, n_new)
    known = {tuple(row.expression_ids): answer for row, answer in zip(subject.rows, answers, strict=True)}
    return KnownDraft(known, len(template(subject.rows[0].expression_ids, ())), right)
