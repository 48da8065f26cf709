"""The engine against transformers' own forward, and against itself in every other arrangement."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from deeplayer_cli.device import blocked_attention
from deeplayer_cli.engine import Engine, Row, decoder, each_row, union_of_rows
from deeplayer_cli.engine.drafting import no_draft
from deeplayer_cli.models.internvl.vision import Encoded, normalize
from deeplayer_cli.pruning import Budget, Options, Prior, build, known_methods, token_places
from tests.engine.reference import PlainModel
from tests.scorer_inputs import inputs_of
from tests.tiny import FAMILIES, tiny_checkpoint

TILES = 5
N_VISUAL = TILES * 4
PLACES = token_places((2, 2), TILES, N_VISUAL)
N_NEW = 10
EXPRESSIONS = ("a dog", "the leftmost cat", "x", "a dog on the other image")
ON_IMAGE = (0, 1, 0, 1)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request):
    return tiny_checkpoint(request.param)


@pytest.fixture(scope="module")
def tiles():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, TILES, 3, 56, 56), dtype=torch.uint8, generator=generator)


def make_engine(checkpoint, method="deep-layer", *, compiled=False, pruned_layers=each_row, draft=no_draft, **options):
    prior = Prior(torch.linspace(1, 2, 4), torch.ones(4), layer=2) if known_methods()[method].is_calibrated else None
    options = Options(**{"budget": Budget(0.3), "prior": prior, **options})
    n_layers = checkpoint.model.config.text_config.num_hidden_layers
    return Engine(
        checkpoint, build(method, options, n_layers), draft=draft, compiled=compiled, pruned_layers=pruned_layers
    )


def make_rows(checkpoint, wanted=(0, 1, 2, 3)):
    encode = checkpoint.tokenizer.encode_expression
    return [Row(ON_IMAGE[index], encode(EXPRESSIONS[index]), seed=index) for index in wanted]


def run(engine, tiles, rows):
    """Logits, kept indices and answers of a batch."""
    places = PLACES[: tiles.shape[1] * N_VISUAL // TILES].expand(len(tiles), -1, -1)
    prompts = engine.prefill(engine.prefix(engine.encode(tiles), places), rows, N_NEW)
    logits = prompts.logits[:, 0].clone()
    return logits, prompts.kept.tolist(), [answer.token_ids for answer in engine.decode(prompts, N_NEW)]


@pytest.mark.parametrize("query", ["last", "text"])
@pytest.mark.parametrize(("layer", "keep"), [(1, 0.1), (3, 0.3), (7, 0.75)])
def test_pruned_run_equals_the_masked_reference(checkpoint, tiles, layer, keep, query):
    engine = make_engine(checkpoint, layer=layer, budget=Budget(keep), query=query)
    logits, kept, answers = run(engine, tiles, make_rows(checkpoint))
    plain = PlainModel(checkpoint)
    n_closing = len(checkpoint.tokenizer.encode_piece(checkpoint.prompt.after_expression))
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        end = len(ids) - n_closing
        asking = [len(ids) - 1] if query == "last" else list(range(end - len(expression), end))
        assert kept[index] == plain.select(ids, features, layer, asking, int(keep * N_VISUAL))
        reference = plain.answer(ids, features, [(layer, kept[index])], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


def test_unpruned_run_equals_generate(checkpoint, tiles):
    _, kept, answers = run(make_engine(checkpoint, "none"), tiles, make_rows(checkpoint))
    assert len(set(map(tuple, answers))) == len(EXPRESSIONS)  # or equality would mean little
    plain = PlainModel(checkpoint)
    for index, expression in enumerate(EXPRESSIONS):
        ids = torch.tensor([plain.prompt_ids(expression, N_VISUAL)])
        generated = checkpoint.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=normalize(tiles[ON_IMAGE[index]]).double(),
            max_new_tokens=N_NEW,
            min_new_tokens=1,
            do_sample=False,
            eos_token_id=checkpoint.eos_id,
            pad_token_id=checkpoint.eos_id,
        )[0, ids.shape[1] :].tolist()
        assert answers[index] == [token for token in generated if token != checkpoint.eos_id]
        assert kept[index] == list(range(N_VISUAL))


@pytest.mark.parametrize(("method", "layer"), [("deep-layer-mis", 3), ("divprune", 0), ("divprune", 4)])
def test_selectors_see_what_layer_k_puts_out(checkpoint, tiles, method, layer):
    engine = make_engine(checkpoint, method, layer=layer)
    logits, kept, answers = run(engine, tiles, make_rows(checkpoint))
    plain, selector = PlainModel(checkpoint), engine.method.stages[0].selector
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        outputs = plain.outputs(ids, features, layer)[None, plain.visual_positions(ids)]
        inputs = inputs_of(outputs, PLACES[None])
        scores = torch.zeros(N_VISUAL) if layer != 3 else plain.scores(ids, features, layer, [len(ids) - 1])
        assert kept[index] == selector(scores[None], inputs, int(0.3 * N_VISUAL))[0].tolist()
        reference = plain.answer(ids, features, [(layer, kept[index])], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


def test_dart_reads_the_keys_and_the_text_of_layer_2(checkpoint, tiles):
    engine = make_engine(checkpoint, "dart", budget=Budget(0.6))
    logits, kept, answers = run(engine, tiles, make_rows(checkpoint))
    plain, (stage,) = PlainModel(checkpoint), engine.method.stages
    for index, expression in enumerate(EXPRESSIONS):
        ids = plain.prompt_ids(expression, N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        visual, outputs = plain.visual_positions(ids), plain.outputs(ids, features, 2)[None]
        inputs = inputs_of(outputs[:, visual], PLACES[None])._replace(
            keys=plain.keys(ids, features, 2),
            prompt_tokens=torch.ones(1, len(ids), dtype=torch.bool),
            visual_start=visual[0],
            text_features=outputs[:, visual[-1] + 1 :],
        )
        scores, other = stage.scorer(inputs), inputs._replace(text_features=-inputs.text_features)
        assert kept[index] == stage.selector(scores, inputs, 12)[0].tolist()
        assert kept[index] != stage.selector(scores, other, 12)[0].tolist()  # or the text's part would go unseen
        reference = plain.answer(ids, features, [(2, kept[index])], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


@pytest.mark.parametrize("layer", [0, 5])
def test_visionzip_asks_the_class_token(checkpoint, tiles, layer):
    engine = make_engine(checkpoint, "visionzip-nomerge", layer=layer)
    logits, kept, answers = run(engine, tiles, make_rows(checkpoint))
    plain, scores = PlainModel(checkpoint), engine.encode(tiles).class_attention.sum(-1)
    for index, expression in enumerate(EXPRESSIONS):
        order = scores[ON_IMAGE[index]].argsort(descending=True)
        assert kept[index] == sorted(order[: int(0.3 * N_VISUAL)].tolist())
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        reference = plain.answer(plain.prompt_ids(expression, N_VISUAL), features, [(layer, kept[index])], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.33, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("method", known_methods())
def test_as_many_tokens_stay_as_promised(checkpoint, tiles, method, keep):
    engine = make_engine(checkpoint, method, budget=Budget(keep))
    prefix = engine.prefix(engine.encode(tiles), PLACES.expand(len(tiles), -1, -1))
    prompts = engine.prefill(prefix, make_rows(checkpoint), 1)
    promised = max(1, int(keep * N_VISUAL)) if known_methods()[method].prunes else N_VISUAL
    for kept in prompts.kept.tolist():
        assert len(kept) == promised
        assert kept == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < N_VISUAL
    # Text is never dropped: every layer holds all of it, and the visual tokens that its stage promises.
    left = dict(engine.method.schedule(N_VISUAL)) if promised < N_VISUAL else {}
    n_text, visual = prefix.n_shared - N_VISUAL, N_VISUAL
    for layer, cache in enumerate(prompts.caches):
        visual = left.get(layer, visual)
        assert cache.slots.n_shared == n_text + visual


@pytest.mark.parametrize("method", [name for name, entry in known_methods().items() if entry.prunes])
def test_keep_everything_is_none(checkpoint, tiles, method):
    rows = make_rows(checkpoint)
    none, everything = (
        run(engine, tiles, rows)
        for engine in (make_engine(checkpoint, "none"), make_engine(checkpoint, method, budget=Budget(1.0)))
    )
    assert torch.equal(none[0], everything[0])
    assert none[1:] == everything[1:]


@pytest.mark.parametrize(
    ("method", "query"),
    [("deep-layer", "text"), ("deep-layer-mis", "text"), *((name, "last") for name in known_methods())],
)
def test_a_row_does_not_depend_on_its_batch(checkpoint, tiles, method, query):
    engine = make_engine(checkpoint, method, query=query)
    together = run(engine, tiles, make_rows(checkpoint))
    for index in range(len(EXPRESSIONS)):
        row = make_rows(checkpoint, [index])[0]
        logits, kept, answers = run(engine, tiles[[row.image]], [Row(0, row.expression_ids, row.seed)])
        assert (logits[0] - together[0][index]).abs().max() < 1e-12
        assert kept[0] == together[1][index]
        assert answers[0] == together[2][index]


@pytest.mark.parametrize(
    ("method", "layer"),
    [("deep-layer", 3), ("random", 0), ("deep-layer-mis", 3), ("uniform", 3)],
)
def test_a_union_is_what_any_of_its_rows_would_keep(checkpoint, tiles, method, layer):
    """And the answers are those of the masked reference, in whose later layers just the union is seen."""
    alone, engine = (
        make_engine(checkpoint, method, layer=layer, pruned_layers=way) for way in (each_row, union_of_rows)
    )
    rows = [replace(row, image=0) for row in make_rows(checkpoint)]
    _, choices, _ = run(alone, tiles[:1], rows)
    logits, kept, answers = run(engine, tiles[:1], rows)
    union = sorted(set().union(*choices))
    assert len(union) > len(choices[0]) or method == "uniform"
    assert kept == [union] * len(rows)
    plain = PlainModel(checkpoint)
    features = plain.features(normalize(tiles[0]))
    for index, expression in enumerate(EXPRESSIONS):
        reference = plain.answer(plain.prompt_ids(expression, N_VISUAL), features, [(layer, union)], N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


@pytest.mark.parametrize(("budget", "renumbers"), [(Budget(0.3), False), (Budget(0.3), True), (Budget(1.0), False)])
def test_a_union_of_one_is_its_own_choice(checkpoint, tiles, budget, renumbers):
    row = make_rows(checkpoint, [0])
    method = replace(make_engine(checkpoint, budget=budget).method, renumbers=renumbers)
    alone, union = (Engine(checkpoint, method, pruned_layers=way) for way in (each_row, union_of_rows))
    expected, found = run(alone, tiles[:1], row), run(union, tiles[:1], row)
    assert (expected[0] - found[0]).abs().max() < 1e-12
    assert expected[1:] == found[1:]


ONE_DROP = [name for name, entry in known_methods().items() if len(entry.all_drops) == 1 and name != "visionzip"]


@pytest.mark.parametrize("method", ONE_DROP)
def test_any_method_may_renumber(checkpoint, tiles, method):
    engine = make_engine(checkpoint, method, positions="renumber")
    logits, kept, answers = run(engine, tiles, make_rows(checkpoint))
    plain = PlainModel(checkpoint, renumbers=True)
    for index, expression in enumerate(EXPRESSIONS):
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        drops = [(engine.method.stages[0].drop_after_layer, kept[index])]
        reference = plain.answer(plain.prompt_ids(expression, N_VISUAL), features, drops, N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index] == reference.token_ids


@pytest.mark.parametrize("layer", [0, 4])
def test_random_choice_is_the_seeds_own(checkpoint, tiles, layer):
    engine = make_engine(checkpoint, "random", layer=layer)
    _, kept, answers = run(engine, tiles, make_rows(checkpoint))
    assert len({tuple(indices) for indices in kept}) == len(kept)
    plain = PlainModel(checkpoint)
    for index, expression in enumerate(EXPRESSIONS):
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        reference = plain.answer(plain.prompt_ids(expression, N_VISUAL), features, [(layer, kept[index])], N_NEW)
        assert answers[index] == reference.token_ids


@pytest.mark.parametrize("method", ["deep-layer", "visionzip-nomerge"])
def test_compiled_selection_equals_eager(tiles, method):
    checkpoint = tiny_checkpoint()
    rows = make_rows(checkpoint)
    engines = [make_engine(checkpoint, method, query="text", compiled=compiled) for compiled in (False, True)]
    for n_tiles in (TILES, 3, 2):
        eager, compiled = (run(engine, tiles[:, :n_tiles], rows[:n_tiles]) for engine in engines)
        assert eager[1:] == compiled[1:]


def test_without_a_compiler_selection_warns_once_and_runs_eagerly(tiles, monkeypatch, caplog):
    def broken(*_: object, **__: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

    checkpoint = tiny_checkpoint()
    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    engine = make_engine(checkpoint, compiled=True)
    first, second = (run(engine, tiles, make_rows(checkpoint)) for _ in range(2))
    assert first[1:] == second[1:] == run(make_engine(checkpoint), tiles, make_rows(checkpoint))[1:]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_attention_and_mlps_by_blocks_change_nothing(tiles, monkeypatch):
    checkpoint = tiny_checkpoint(dtype=torch.float32)
    rows = make_rows(checkpoint)
    expected = [run(make_engine(checkpoint, method), tiles, rows) for method in ("none", "deep-layer", "freeze")]
    use_blocks(monkeypatch)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        found = [run(make_engine(checkpoint, method), tiles, rows) for method in ("none", "deep-layer", "freeze")]
    assert any(event.name == "mkldnn::_linear_pointwise" for event in trace.events())
    for (logits, *rest), (expected_logits, *expected_rest) in zip(found, expected, strict=True):
        assert rest == expected_rest
        torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=1e-4)


def use_blocks(monkeypatch):
    """Let the short prompts of these tests run by blocks, in attention and MLPs, with blocks that are shorter still."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(blocked_attention, "_LEAST_PRODUCTS", 1)
    monkeypatch.setattr(blocked_attention, "_ROWS", 16)
    monkeypatch.setattr(decoder, "_MLP_BLOCK", 7)


@pytest.mark.parametrize("by_blocks", [False, True])
def test_no_full_attention_matrix_is_ever_built(tiles, by_blocks, monkeypatch):
    if by_blocks:
        use_blocks(monkeypatch)
    checkpoint = tiny_checkpoint(dtype=torch.float32)
    engine = make_engine(checkpoint)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        prefix = engine.prefix(Encoded(*(part.repeat(1, 8, 1) for part in engine.encode(tiles))))
        engine.decode(engine.prefill(prefix, make_rows(checkpoint), N_NEW), N_NEW)
    n_prompt = prefix.n_shared
    shapes = [shape for event in trace.events() for shape in event.input_shapes or [] if len(shape) >= 2]
    assert max(shape[-2] for shape in shapes) >= n_prompt  # the trace saw the prompt
    assert not [shape for shape in shapes if min(shape[-2:]) >= n_prompt]


def test_the_first_token_is_never_the_stop(tiles):
    checkpoint = tiny_checkpoint()
    engine = make_engine(checkpoint)
    prompts = engine.prefill(engine.prefix(engine.encode(tiles)), make_rows(checkpoint), 1)
    wants_to_stop = torch.full_like(prompts.logits, -1e4)
    wants_to_stop[..., checkpoint.eos_id] = 1e4
    answers = engine.decode(replace(prompts, logits=wants_to_stop), 1)
    assert all(len(answer.token_ids) == 1 and answer.token_ids[0] != checkpoint.eos_id for answer in answers)
