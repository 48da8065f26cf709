"""A scout and its focus: the plain model, read twice, says the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deeplayer_cli.engine import Engine, Row, union_of_rows
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.vision import normalize
from deeplayer_cli.pruning import AttentionScorer, Budget, Drop, Entry, Options, Scorer, build
from tests.engine.reference import PlainModel
from tests.engine.test_contract import FewestWithMass, NeighbourMerge
from tests.engine.test_engine import EXPRESSIONS, N_NEW, N_VISUAL, ON_IMAGE, checkpoint, make_rows, run, tiles  # noqa: F401 - fixtures
from tests.engine.test_row_groups import of_many

N_LAYERS, N_FOCUS = 8, 6
LONG = 60  # answer tokens that leave room for the whole draft


def scouting(layer=5, updates=0, keep=0.3):
    return build(f"scout-focus@updates={updates}", Options(Budget(keep), layer=layer), N_LAYERS)


def engine_of(checkpoint, method, **options):  # noqa: F811
    return Engine(checkpoint, method, draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer), **options)


def scores(checkpoint, tiles, index, method):  # noqa: F811
    """The attention of the last drafted token in the plain model, whose visual tokens are not updated."""
    plain = PlainModel(checkpoint, freeze_after_layer=method.scout.updates)
    row = make_rows(checkpoint, [index])[0]
    draft = TemplateDraft.from_tokenizer(checkpoint.tokenizer)(row.expression_ids, ())
    ids = plain.prompt_ids(EXPRESSIONS[index], N_VISUAL) + list(draft)[: N_NEW - 1]
    return plain.scores(ids, plain.features(normalize(tiles[ON_IMAGE[index]])), method.scout.layer, [len(ids) - 1])


def require_focus(checkpoint, tiles, found):  # noqa: F811
    """Logits and answers are those of the plain model that sees the kept tokens alone, in all layers."""
    plain = PlainModel(checkpoint)
    for index, expression in enumerate(EXPRESSIONS):
        ids, features = plain.prompt_ids(expression, N_VISUAL), plain.features(normalize(tiles[ON_IMAGE[index]]))
        reference = plain.answer(ids, features, [(0, found[1][index])], N_NEW)
        assert (found[0][index] - reference.logits).abs().max() < 1e-9
        assert found[2][index] == reference.token_ids


@pytest.mark.parametrize(("layer", "updates"), [(1, 0), (5, 0), (5, 2), (8, 0), (8, 8)])
def test_scout_and_focus_equal_the_reference(checkpoint, tiles, layer, updates):  # noqa: F811
    method = scouting(layer, updates)
    found = run(engine_of(checkpoint, method), tiles, make_rows(checkpoint))
    for index in range(len(EXPRESSIONS)):
        order = scores(checkpoint, tiles, index, method).argsort(descending=True, stable=True)
        assert found[1][index] == sorted(order[:N_FOCUS].tolist())
    assert len(set(map(tuple, found[1]))) > 1
    require_focus(checkpoint, tiles, found)


def test_a_scout_keeps_no_cache_and_reads_each_image_once(checkpoint, tiles):  # noqa: F811
    engine = engine_of(checkpoint, scouting())
    prefix = engine.prefix(engine.encode(tiles))
    prompts = engine.prefill(prefix, make_rows(checkpoint), N_NEW)
    assert len(prefix.keys) == 5 and prefix.n_updated == 0 and len(prefix.visual) == 2
    assert prefix.keys[-1].shape[2] == prefix.n_shared - prefix.text.shape[1]  # P1 runs with the suffixes
    assert len(prompts.caches) == N_LAYERS
    assert {cache.slots.n_shared for cache in prompts.caches} == {prefix.n_shared - N_VISUAL + N_FOCUS}


@pytest.mark.parametrize("selector", [None, FewestWithMass(0.75)])
def test_a_scouted_row_does_not_depend_on_its_batch(checkpoint, tiles, selector):  # noqa: F811
    """Also where rows focus on different numbers of tokens."""
    method = scouting()
    if selector is not None:
        method = replace(method, stages=(replace(method.stages[0], selector=selector),))
    together = run(engine_of(checkpoint, method), tiles, make_rows(checkpoint))
    assert selector is None or len(set(map(len, together[1]))) > 1
    require_focus(checkpoint, tiles, together)
    for index, row in enumerate(make_rows(checkpoint)):
        alone = [Row(0, row.expression_ids, row.seed)]
        logits, kept, answers = run(engine_of(checkpoint, method), tiles[[row.image]], alone)
        assert (logits[0] - together[0][index]).abs().max() < 1e-12
        assert (kept[0], answers[0]) == (together[1][index], together[2][index])


@pytest.mark.parametrize("updates", [0, 2])
def test_groups_of_different_sizes_change_no_choice(checkpoint, tiles, updates):  # noqa: F811
    """Two groups of one image, and one of another that has an empty place; expressions of many lengths."""
    engine = engine_of(checkpoint, scouting(updates=updates))
    rows = of_many(checkpoint, [1] * 4 + [0, 1] * 3 + [1] * 2)
    prefix = engine.prefix(engine.encode(tiles))
    together = engine.prefill(prefix, rows, N_NEW)
    assert len(set(map(tuple, together.kept.tolist()))) > 3
    for index, row in enumerate(rows):
        alone = engine.prefill(prefix, [row], N_NEW)
        assert alone.kept.tolist()[0] == together.kept.tolist()[index]
        assert (alone.logits[0, 0] - together.logits[index, 0]).abs().max() < 1e-12


def test_a_scout_can_be_followed_by_drops_and_by_freezing(checkpoint, tiles):  # noqa: F811
    drops = (
        Drop(lambda _: AttentionScorer("drafted"), layer=5, share=0.5, scout=lambda _: 0),
        Drop(lambda _: AttentionScorer("last"), layer=3),
    )
    whole = Entry("", "", drops=drops).build("mine", Options(Budget(0.2)), N_LAYERS)
    whole = replace(whole, freeze_after_layer=4)
    first = replace(whole, stages=whole.stages[:1])
    (_, focus, _), found = (run(engine_of(checkpoint, one), tiles, make_rows(checkpoint)) for one in (first, whole))
    plain = PlainModel(checkpoint, freeze_after_layer=4)
    for index, expression in enumerate(EXPRESSIONS):
        ids, features = plain.prompt_ids(expression, N_VISUAL), plain.features(normalize(tiles[ON_IMAGE[index]]))
        stages = [(0, focus[index]), (3, found[1][index])]
        assert len(focus[index]) == N_VISUAL // 2 and set(found[1][index]) < set(focus[index])
        reference = plain.answer(ids, features, stages, N_NEW)
        assert (found[0][index] - reference.logits).abs().max() < 1e-9
        assert found[2][index] == reference.token_ids


def test_the_foci_of_an_image_can_be_united(checkpoint, tiles):  # noqa: F811
    rows = [replace(row, image=0) for row in make_rows(checkpoint)]
    alone, union = (
        run(engine_of(checkpoint, scouting(), **options), tiles[:1], rows)
        for options in ({}, {"pruned_layers": union_of_rows})
    )
    assert union[1] == [sorted(set().union(*alone[1]))] * len(rows) and len(union[1][0]) > N_FOCUS
    require_focus(checkpoint, tiles[[0, 0]], union)


@pytest.mark.parametrize("layer", [0, 9])
def test_a_scout_needs_a_layer_that_is_there(layer):
    with pytest.raises(DeeplayerError, match=f"layer {layer} is out of range.*a scout can score in layers 1 to 8"):
        scouting(layer)


def test_only_the_first_drop_may_scout():
    scout = Drop(lambda _: AttentionScorer("drafted"), layer=5, scout=lambda _: 0)
    entry = Entry("", "", drops=(Drop(lambda _: AttentionScorer("last"), layer=3), scout))
    with pytest.raises(DeeplayerError, match="method mine: only the first drop may have a scout"):
        entry.build("mine", Options(Budget(0.3)), N_LAYERS)


def test_a_drop_does_not_score_with_both_its_scout_and_the_next_layer():
    scout = Drop(lambda _: AttentionScorer("drafted"), layer=5, scout=lambda _: 0, score_from="next_layer")
    with pytest.raises(DeeplayerError, match="method mine: a drop scores with its scout or with the next layer"):
        Entry("", "", drops=(scout,)).build("mine", Options(Budget(0.3)), N_LAYERS)


def test_tokens_that_a_scout_has_updated_are_not_merged():
    drop = Drop(lambda _: AttentionScorer("last"), NeighbourMerge(), layer=5, scout=lambda _: 2)
    with pytest.raises(DeeplayerError, match=r"method mine: merged tokens run from layer 1 on.* 0 layers, not 2$"):
        Entry("", "", drops=(drop,)).build("mine", Options(Budget(0.3)), N_LAYERS)


def test_defaults_follow_the_models_depth():
    assert [build("scout-focus", Options(Budget(0.15)), n).layer for n in (8, 24, 32)] == [5, 15, 20]
    assert build("cascade", Options(Budget(0.1)), 32).schedule(100) == ((0, 50), (20, 10))
    assert build("cascade", Options(Budget(0.1), layer=4), 8).schedule(100) == ((0, 50), (4, 10))


def test_the_whole_draft_is_read_to_score(checkpoint, tiles):  # noqa: F811
    engine = engine_of(checkpoint, scouting())
    prompts = engine.prefill(engine.prefix(engine.encode(tiles)), make_rows(checkpoint), LONG)
    plain = PlainModel(checkpoint, freeze_after_layer=0)
    for index, row in enumerate(make_rows(checkpoint)):
        ids = plain.prompt_ids(EXPRESSIONS[index], N_VISUAL)
        ids += TemplateDraft.from_tokenizer(checkpoint.tokenizer)(row.expression_ids, ())
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        assert prompts.kept.tolist()[index] == plain.select(ids, features, 5, [len(ids) - 1], N_FOCUS)


def test_a_scorer_reads_the_scouts_last_layer(checkpoint, tiles):  # noqa: F811
    """Rows about one image run together; a scorer sees the hidden states and values of each row alone."""
    read = {}

    class Reading(Scorer):
        needs = frozenset({"text_features", "values"})

        def __call__(self, inputs):
            for index, seed in enumerate(inputs.seeds.tolist()):
                read[seed] = inputs.text_features[index], inputs.values[index]
            return torch.rand(len(inputs.seeds), inputs.n_visual)

    drop = Drop(lambda _: Reading(), layer=5, scout=lambda _: 0)
    engine = engine_of(checkpoint, Entry("", "", drops=(drop,)).build("mine", Options(Budget(0.3)), N_LAYERS))
    run(engine, tiles, make_rows(checkpoint))
    plain = PlainModel(checkpoint, freeze_after_layer=0)
    for index, expression in enumerate(EXPRESSIONS):
        ids, features = plain.prompt_ids(expression, N_VISUAL), plain.features(normalize(tiles[ON_IMAGE[index]]))
        text, values = read[index]
        expected = plain.output_after(ids, features, 5, [])[plain.visual_positions(ids)[-1] + 1 :]
        assert (text[: len(expected)] - expected).abs().max() < 1e-12
        _, _, expected = plain.projections(ids, features, 5)
        found = values.repeat_interleave(len(expected) // len(values), dim=0)
        assert (found[:, : len(ids)] - expected).abs().max() < 1e-12
    assert len(read) == len(EXPRESSIONS)
