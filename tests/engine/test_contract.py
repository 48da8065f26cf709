"""What a method may say, beyond what the shipped ones do: cascades, merging, budgets that depend on the content."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from deeplayer_cli.cost.flops import kv_bytes
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.engine import Engine, union_of_rows
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.vision import normalize
from deeplayer_cli.pruning import (
    AttentionScorer,
    Budget,
    Drop,
    Entry,
    Options,
    Scorer,
    Selection,
    Selector,
    TopK,
    topk,
)
from deeplayer_cli.pruning.inputs import NEEDS
from deeplayer_cli.pruning.methods.uniform import UniformScorer
from tests.engine.reference import PlainModel
from tests.engine.test_engine import EXPRESSIONS, N_NEW, N_VISUAL, ON_IMAGE, checkpoint, make_rows, run, tiles  # noqa: F401 - fixtures

LAYER, BUDGET = 3, Budget(0.3)
N_KEEP = 6


def engine_of(checkpoint, entry, **options):  # noqa: F811
    method = entry.build("mine", Options(BUDGET), checkpoint.model.config.text_config.num_hidden_layers)
    return Engine(checkpoint, method, **options)


def last_scores(options):
    return AttentionScorer(options.query)


class FewestWithMass(Selector):
    """The fewest tokens that hold a share of the scores."""

    adaptive = True

    def __init__(self, share):
        self.share = share

    def __call__(self, scores, inputs, n_keep):
        falling = scores.sort(dim=-1, descending=True, stable=True)
        before = falling.values.cumsum(-1) - falling.values
        counts = (before < self.share * scores.sum(-1, keepdim=True)).sum(-1).clamp(1, n_keep)
        n_visual, is_kept = scores.shape[1], torch.arange(n_keep) < counts[:, None]
        indices = falling.indices[:, :n_keep].where(is_kept, n_visual).sort(-1).values
        return Selection(indices.clamp(max=n_visual - 1), counts)


class NeighbourMerge(Selector):
    """Keeps the highest scores, and puts the mean of a token and its right neighbour in the token's place."""

    needs = frozenset({"features", "weights"})
    merges = True

    def __call__(self, scores, inputs, n_keep):
        indices = topk(scores, n_keep)
        neighbours = (indices + 1).clamp(max=scores.shape[1] - 1)
        features, weights = inputs.features, inputs.weights
        merged = (
            features.take_along_dim(indices[..., None], 1) + features.take_along_dim(neighbours[..., None], 1)
        ) / 2
        return Selection(indices, None, merged, weights.gather(1, indices) + weights.gather(1, neighbours))


@contextmanager
def merging(plain, ids, kept, layer):
    """Do to the plain model's hidden states what `NeighbourMerge` does."""
    visual = torch.tensor(plain.visual_positions(ids))

    def merge(module, args, output):
        merged = output.clone()
        kept_at = torch.tensor(kept)
        neighbours = (kept_at + 1).clamp(max=len(visual) - 1)
        merged[:, visual[kept_at]] = (output[:, visual[kept_at]] + output[:, visual[neighbours]]) / 2
        return merged

    hook = plain.decoder.layers[layer - 1].register_forward_hook(merge)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("score_from", ["same_layer", "next_layer"])
def test_a_cascade_of_two_ideas_is_data(checkpoint, tiles, score_from):  # noqa: F811
    grid = Drop(lambda _: UniformScorer(), layer=0, share=0.5)
    entry = Entry("", "", drops=(grid, Drop(last_scores, layer=LAYER, score_from=score_from)))
    logits, kept, answers = run(engine_of(checkpoint, entry), tiles, make_rows(checkpoint))
    plain = PlainModel(checkpoint)
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        first = kept_by_grid(checkpoint, tiles)
        reads = LAYER + (score_from == "next_layer")
        scores = plain.scores(ids, features, reads, [len(ids) - 1], [(0, first)])
        second = torch.tensor(first)[topk(scores[None, first], N_KEEP)[0]].tolist()
        assert kept[index] == second and len(first) == N_VISUAL // 2
        reference = plain.answer(ids, features, [(0, first), (LAYER, second)], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


def kept_by_grid(checkpoint, tiles):  # noqa: F811
    entry = Entry("", "", lambda _: UniformScorer(), layer=0)
    method = entry.build("grid", Options(Budget(0.5)), 8)
    return run(Engine(checkpoint, method), tiles, make_rows(checkpoint))[1][0]


@pytest.mark.parametrize("layer", [LAYER, 0])
def test_merged_tokens_take_the_place_of_kept_ones(checkpoint, tiles, layer):  # noqa: F811
    scorer = last_scores if layer else lambda _: UniformScorer()
    entry = Entry("", "", scorer, NeighbourMerge(), layer=layer)
    logits, kept, answers = run(engine_of(checkpoint, entry), tiles, make_rows(checkpoint))
    plain = PlainModel(checkpoint)
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        if layer == 0:
            merged = features.clone()
            merged[kept[index]] = (
                features[kept[index]] + features[[min(i + 1, N_VISUAL - 1) for i in kept[index]]]
            ) / 2
            reference = plain.answer(ids, merged, [(0, kept[index])], N_NEW)
        else:
            assert kept[index] == plain.select(ids, features, layer, [len(ids) - 1], N_KEEP)
            with merging(plain, ids, kept[index], layer):
                reference = plain.answer(ids, features, [(layer, kept[index])], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


def test_weights_of_merged_tokens_reach_the_next_stage(checkpoint, tiles):  # noqa: F811
    seen = []

    class SeesWeights(Selector):
        needs = frozenset({"weights"})

        def __call__(self, scores, inputs, n_keep):
            seen.append(inputs.weights)
            return topk(scores, n_keep)

    merge = Drop(lambda _: UniformScorer(), NeighbourMerge(), layer=0, share=0.5)
    entry = Entry("", "", drops=(merge, Drop(last_scores, SeesWeights(), layer=LAYER)))
    run(engine_of(checkpoint, entry), tiles, make_rows(checkpoint))
    weights = torch.cat(seen)
    assert weights.shape == (4, N_VISUAL // 2) and (weights == 2).all()


@pytest.mark.parametrize("score_from", ["same_layer", "next_layer"])
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_a_budget_may_depend_on_the_content(checkpoint, tiles, share, score_from):  # noqa: F811
    selector = FewestWithMass(share)
    entry = Entry("", "", drops=(Drop(last_scores, selector, layer=LAYER, score_from=score_from),))
    engine = engine_of(checkpoint, entry)
    logits, kept, answers = run(engine, tiles, make_rows(checkpoint))
    assert len(set(map(len, kept))) > 1 and all(1 <= len(one) <= N_KEEP for one in kept)
    plain = PlainModel(checkpoint)
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        scores = plain.scores(ids, features, LAYER + (score_from == "next_layer"), [len(ids) - 1])
        selected = selector(scores[None], None, N_KEEP)
        assert kept[index] == selected.indices[0, : selected.counts[0]].tolist()
        reference = plain.answer(ids, features, [(LAYER, kept[index])], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids
        row = make_rows(checkpoint, [index])[0]
        alone = run(engine, tiles[[row.image]], [type(row)(0, row.expression_ids, row.seed)])
        assert (alone[0][0] - logits[index]).abs().max() < 1e-12 and alone[1:] == ([kept[index]], [answers[index]])


def test_what_stays_is_what_is_counted(checkpoint, tiles):  # noqa: F811
    engine = engine_of(checkpoint, Entry("", "", last_scores, FewestWithMass(0.6), layer=LAYER))
    method, (row,) = engine.method, make_rows(checkpoint, [0])
    prompts = engine.prefill(engine.prefix(engine.encode(tiles)), [row], 1)
    n_kept = len(prompts.kept.tolist()[0])
    shape = ModelShape.from_config(checkpoint.model.config)
    lengths = PromptLengths.from_checkpoint(checkpoint, N_VISUAL, len(row.expression_ids))
    held = sum(cache.of_rows(lengths.suffix)[0][0].nbytes for cache in prompts.caches)
    assert 1 <= n_kept < N_KEEP
    assert 2 * held == kv_bytes(shape, lengths, 8, method, n_kept)
    assert method.mean_keep(N_VISUAL, 8, n_kept) == pytest.approx((3 * N_VISUAL + 5 * n_kept) / (8 * N_VISUAL))
    assert method.mean_keep(N_VISUAL, 8) == pytest.approx((3 * N_VISUAL + 5 * N_KEEP) / (8 * N_VISUAL))


@pytest.mark.parametrize("need", sorted(NEEDS))
def test_only_what_is_asked_for_is_there(checkpoint, tiles, need):  # noqa: F811
    seen = []

    class Curious(Scorer):
        needs = frozenset({need})
        takes_padding = True

        def __call__(self, inputs):
            seen.append(inputs)
            return torch.zeros(len(inputs.seeds), inputs.n_visual)

    engine = engine_of(checkpoint, Entry("", "", lambda _: Curious(), layer=LAYER))
    run(engine, tiles, make_rows(checkpoint))
    (inputs,) = seen
    together = {"queries": {"queries", "visible", "keys"}, "features": {"features", "text_features"}}
    together["text_features"] = together["features"]
    present = {name for name in (*NEEDS, "visible") if getattr(inputs, name) is not None}
    assert present == together.get(need, {need})
    assert inputs.visual == slice(inputs.visual_start, inputs.visual_start + N_VISUAL)
    n_closing = len(checkpoint.tokenizer.encode_piece(checkpoint.prompt.after_expression))
    longest = max(map(len, EXPRESSIONS))
    padding = [longest - len(expression) for expression in EXPRESSIONS]
    assert [int((~row).sum()) for row in inputs.prompt_tokens] == padding and n_closing > 0


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            Entry("", "", lambda _: object()),
            r"must be subclasses of deeplayer_cli.pruning.Scorer and Selector, .*pruning/methods/README\.md$",
        ),
        (
            Entry("", "", last_scores, type("Odd", (TopK,), {"needs": frozenset({"mood"})})()),
            "needs mood; known inputs: ",
        ),
        (
            Entry("", "", last_scores, type("Odd", (TopK,), {"needs": "keys"})()),
            "the `needs` of Odd must be a frozenset of names, not 'keys'",
        ),
        (
            Entry("", "", AttentionScorer),
            "the `rows` of its scorer must be last, text, question or drafted, not Options",
        ),
        (
            Entry("", "", lambda _: AttentionScorer(softmax_over="all")),
            "raised ValueError: softmax_over must be prompt or visual, not 'all'",
        ),
        (Entry("", "", last_scores, type("Odd", (TopK,), {"merges": True})()), "its `needs` must name features"),
        (
            Entry("", "", drops=(Drop(last_scores, FewestWithMass(0.5), layer=2), Drop(last_scores, layer=4))),
            "only the last drop may be adaptive",
        ),
    ],
)
def test_what_no_engine_could_run_is_refused(entry, reason):
    with pytest.raises(DeeplayerError, match=f"method mine.*{reason}"):
        entry.build("mine", Options(BUDGET), 8)


def test_an_adaptive_method_does_not_renumber():
    entry = Entry("", "", last_scores, FewestWithMass(0.5))
    with pytest.raises(DeeplayerError, match=r"method mine: .* only if the method does not renumber position ids"):
        entry.build("mine", Options(BUDGET, positions="renumber"), 8)
    highest = Entry("", "", last_scores)
    with pytest.raises(DeeplayerError, match=r"method mine: --keep auto:P .* leave out --positions renumber, or give"):
        highest.build("mine", Options(Budget(mass=0.9), positions="renumber"), 8)
    assert highest.build("mine", Options(Budget(mass=1.0), positions="renumber"), 8).renumbers


def test_what_cannot_be_united_says_so(checkpoint):  # noqa: F811
    drop = Drop(last_scores, layer=2)
    for entry, obstacle in (
        (Entry("", "", last_scores, FewestWithMass(0.5)), "keeps a number of tokens that follows the row"),
        (Entry("", "", last_scores, NeighbourMerge()), "merges tokens"),
        (Entry("", "", drops=(replace(drop, score_from="next_layer"),)), "scores with the layer after the drop"),
        (Entry("", "", drops=(drop, Drop(last_scores, layer=4))), "drops in several steps"),
        (Entry("", "", last_scores), None),
    ):
        assert engine_of(checkpoint, entry, pruned_layers=union_of_rows).method.union_obstacle == obstacle


class Returns(Selector):
    """Returns what it is told to, whatever the scores are."""

    def __init__(self, selection, *, adaptive=False):
        self.selection, self.adaptive = selection, adaptive

    def __call__(self, scores, inputs, n_keep):
        return self.selection(torch.arange(n_keep).expand(len(scores), -1))


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        (Returns(lambda first: first + 10**6), "indices that are not sorted, unique and below"),
        (Returns(lambda first: first - 1), "indices that are not sorted, unique and below"),
        (Returns(lambda first: Selection(first, first[:, 0] * 0), adaptive=True), "counts that are not between 1 and"),
        (Returns(lambda first: Selection(first, first[:, 0] + 99), adaptive=True), "counts that are not between 1 and"),
    ],
)
@pytest.mark.parametrize("score_from", ["same_layer", "next_layer"])
def test_a_prefill_ends_with_the_error_of_a_broken_method(checkpoint, tiles, selector, reason, score_from):  # noqa: F811
    drops = (Drop(last_scores, layer=1, share=0.5), Drop(last_scores, selector, layer=LAYER, score_from=score_from))
    engine = engine_of(checkpoint, Entry("", "", drops=drops))
    prefix = engine.prefix(engine.encode(tiles))
    with pytest.raises(DeeplayerError, match=f"method mine is broken: it returned {reason}"):
        engine.prefill(prefix, make_rows(checkpoint), N_NEW)


def test_a_union_ends_with_the_error_of_a_broken_method(checkpoint, tiles):  # noqa: F811
    entry = Entry("", "", last_scores, Returns(lambda first: first + 10**6), layer=LAYER)
    engine = engine_of(checkpoint, entry, pruned_layers=union_of_rows)
    prefix = engine.prefix(engine.encode(tiles[:1]))
    with pytest.raises(DeeplayerError, match="method mine is broken"):
        engine.prefill(prefix, make_rows(checkpoint, [0, 2]), N_NEW)
