"""Frozen visual tokens: the plain model, whose layers put out for them what went in, says the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deeplayer_cli.engine import Engine, Row, union_of_rows
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.vision import normalize
from deeplayer_cli.pruning import Budget, Drop, Entry, Options, build
from tests.engine.reference import PlainModel
from tests.engine.test_contract import FewestWithMass, last_scores
from tests.engine.test_engine import (  # noqa: F401 - fixtures
    EXPRESSIONS,
    N_NEW,
    N_VISUAL,
    ON_IMAGE,
    checkpoint,
    make_engine,
    make_rows,
    run,
    tiles,
)

N_LAYERS = 8


def freezing(name, freeze_after_layer, keep=0.3, **options):
    return replace(build(name, Options(Budget(keep), **options), N_LAYERS), freeze_after_layer=freeze_after_layer)


def require_reference(checkpoint, tiles, method, found, stages=lambda kept: []):  # noqa: F811
    """Logits and answers are those of the plain model that freezes, with what ``stages`` says of the kept tokens."""
    logits, kept, answers = found
    plain = PlainModel(checkpoint, renumbers=method.renumbers, freeze_after_layer=method.freeze_after_layer)
    for index, expression in enumerate(EXPRESSIONS):
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        reference = plain.answer(plain.prompt_ids(expression, N_VISUAL), features, stages(kept[index]), N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


@pytest.mark.parametrize("layer", [0, 1, 3, 7])
def test_freeze_equals_the_reference(checkpoint, tiles, layer):  # noqa: F811
    method = build("freeze", Options(Budget(0.1), layer=layer), N_LAYERS)
    found = run(Engine(checkpoint, method), tiles, make_rows(checkpoint))
    assert found[1] == [list(range(N_VISUAL))] * len(EXPRESSIONS)
    require_reference(checkpoint, tiles, method, found)
    none = run(make_engine(checkpoint, "none"), tiles, make_rows(checkpoint))
    assert (none[0] - found[0]).abs().max() > 1e-3 or layer == 7


@pytest.mark.parametrize("layer", [N_LAYERS - 1, N_LAYERS])
@pytest.mark.parametrize("name", ["freeze", "deep-layer"])
def test_freezing_after_the_last_layer_changes_nothing(checkpoint, tiles, layer, name):  # noqa: F811
    rows = make_rows(checkpoint)
    none = run(make_engine(checkpoint, "none"), tiles, rows)
    found = run(Engine(checkpoint, freezing(name, layer, keep=1.0)), tiles, rows)
    assert torch.equal(none[0], found[0]) and none[1:] == found[1:]


@pytest.mark.parametrize(
    ("name", "drop", "freeze"),
    [
        ("deep-layer", 3, 0),
        ("deep-layer", 3, 2),  # as if layer K were deferred and never finished
        ("deep-layer", 3, 3),
        ("deep-layer", 3, 5),
        ("deep-layer-mis", 4, 2),
        ("uniform", 0, 0),
        ("uniform", 0, 4),
        ("vscan", 4, 3),
    ],
)
def test_any_drop_combines_with_freezing(checkpoint, tiles, name, drop, freeze):  # noqa: F811
    method = freezing(name, freeze, layer=drop)
    found = run(Engine(checkpoint, method), tiles, make_rows(checkpoint))
    require_reference(checkpoint, tiles, method, found, lambda kept: [(drop, kept)])
    if name == "deep-layer":
        plain = PlainModel(checkpoint, freeze_after_layer=freeze)
        for index, expression in enumerate(EXPRESSIONS):
            ids = plain.prompt_ids(expression, N_VISUAL)
            features = plain.features(normalize(tiles[ON_IMAGE[index]]))
            assert found[1][index] == plain.select(ids, features, drop, [len(ids) - 1], int(0.3 * N_VISUAL))


@pytest.mark.parametrize("freeze", [1, 4])
@pytest.mark.parametrize("renumbers", [False, True])
def test_two_drops_combine_with_freezing(checkpoint, tiles, freeze, renumbers):  # noqa: F811
    entry = Entry("", "", drops=(Drop(last_scores, layer=2, share=0.5), Drop(last_scores, layer=5)))
    method = entry.build("mine", Options(Budget(0.2)), N_LAYERS)
    whole = replace(method, renumbers=renumbers, freeze_after_layer=freeze)
    first = replace(whole, stages=whole.stages[:1])
    (_, halves, _), found = (run(Engine(checkpoint, one), tiles, make_rows(checkpoint)) for one in (first, whole))
    by_kept = {tuple(kept): half for kept, half in zip(found[1], halves, strict=True)}
    require_reference(checkpoint, tiles, whole, found, lambda kept: [(2, by_kept[tuple(kept)]), (5, kept)])


@pytest.mark.parametrize("freeze", [0, 2, 5])
def test_frozen_rows_do_not_depend_on_their_batch(checkpoint, tiles, freeze):  # noqa: F811
    """Also where rows keep different numbers of tokens."""
    entry = Entry("", "", drops=(Drop(last_scores, FewestWithMass(0.75), layer=3),))
    ragged = replace(entry.build("mine", Options(Budget(0.3)), N_LAYERS), freeze_after_layer=freeze)
    for method in (ragged, freezing("freeze", freeze)):
        together = run(Engine(checkpoint, method), tiles, make_rows(checkpoint))
        assert method is not ragged or len(set(map(len, together[1]))) > 1
        require_reference(checkpoint, tiles, method, together, lambda kept: [(3, kept)])
        for index, row in enumerate(make_rows(checkpoint)):
            alone = Row(0, row.expression_ids, row.seed)
            logits, kept, answers = run(Engine(checkpoint, method), tiles[[row.image]], [alone])
            assert (logits[0] - together[0][index]).abs().max() < 1e-12
            assert (kept[0], answers[0]) == (together[1][index], together[2][index])


@pytest.mark.parametrize("freeze", [0, 5])
def test_a_union_can_be_frozen(checkpoint, tiles, freeze):  # noqa: F811
    method = freezing("deep-layer", freeze, layer=3)
    rows = [replace(row, image=0) for row in make_rows(checkpoint)]
    found = run(Engine(checkpoint, method, pruned_layers=union_of_rows), tiles[:1], rows)
    assert len(found[1][0]) > int(0.3 * N_VISUAL)
    require_reference(checkpoint, tiles[[0, 0]], method, found, lambda kept: [(3, kept)])


def test_the_draft_may_score_frozen_tokens(checkpoint, tiles):  # noqa: F811
    method = freezing("primed", 0, layer=5)
    drafts = [[7, 8, 9, 10] for _ in EXPRESSIONS]
    engine = Engine(checkpoint, method, draft=lambda *_: drafts[0])
    prompts = engine.prefill(engine.prefix(engine.encode(tiles)), make_rows(checkpoint), N_NEW)
    plain = PlainModel(checkpoint, freeze_after_layer=0)
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL) + drafts[index]
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        assert prompts.kept.tolist()[index] == plain.select(ids, features, 5, [len(ids) - 1], int(0.3 * N_VISUAL))


@pytest.mark.parametrize("layer", [-1, 9])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(DeeplayerError, match=f"layer {layer} is out of range.*frozen after layers 0 to 8"):
        build("freeze", Options(Budget(0.1), layer=layer), N_LAYERS)


def test_the_default_layer_follows_the_models_depth():
    assert [build("freeze", Options(Budget(0.1)), n).freeze_after_layer for n in (8, 24, 32)] == [3, 9, 12]
    assert build("freeze", Options(Budget(0.1)), 8).layer == 3
