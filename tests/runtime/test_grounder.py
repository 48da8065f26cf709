"""Requests to predictions, with a tiny random model: order, independence, sharing, failures."""

from __future__ import annotations

import copy
import pickle
import random
import threading
import time
import weakref
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import orjson
import pytest
import torch
from PIL import Image

from deeplayer_cli.checkpoints.layout import Scope
from deeplayer_cli.engine import Engine
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.tiling import tile_grid
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.runtime.scheduler import Failure, Scheduler
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.sources import ArrivingRows, open_source
from tests.tiny import ByteTokenizer, tiny_checkpoint

SIZES = {"square": (60, 60), "wide": (170, 60), "tall": (50, 160), "other": (61, 59)}
EXPRESSIONS = ("left one", "the red dog on the far side", "x")
SETTINGS = Settings(max_new_tokens=6, keep=0.4, with_kept=True)


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Three expressions for each of four images of three tile counts, as a JSONL file would give them."""
    folder = tmp_path_factory.mktemp("images")
    rng = random.Random(5)
    lines = []
    for name, size in SIZES.items():
        Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize(size).save(folder / f"{name}.png")
        lines += [
            f'{{"id": "{name}-{i}", "image": "{name}.png", "expression": "{e}"}}' for i, e in enumerate(EXPRESSIONS)
        ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return list(open_source([str(folder / "rows.jsonl")]))


@pytest.fixture
def encoded(monkeypatch):
    """How many images went through the vision tower, call by call."""
    sizes, plain = [], Engine.encode
    monkeypatch.setattr(Engine, "encode", lambda self, tiles: sizes.append(len(tiles)) or plain(self, tiles))
    return sizes


def ground(checkpoint, rows, **changes):
    return {row.id: row for row in Grounder(checkpoint, replace(SETTINGS, **changes)).ground(rows)}


@pytest.mark.parametrize("method", ["none", "random", "deep-layer", "deep-layer-mis"])
def test_a_row_does_not_depend_on_order_neighbours_or_shard(checkpoint, requests, method):
    together = ground(checkpoint, requests, method=method)
    assert list(together) == [request.id for request in requests]
    assert len({row.answer for row in together.values()}) > 4
    shuffled = random.Random(1).sample(requests, len(requests))
    arrangements = [
        (shuffled, {"batch_size": 5}),
        (requests, {"batch_size": 1}),
        (requests[::2], {"batch_size": 2}),
        (requests[1::2], {"batch_size": 16, "workers": 1}),
    ]
    for rows, changes in arrangements:
        answers = ground(checkpoint, rows, method=method, **changes)
        assert list(answers) == [request.id for request in rows]
        for row_id, answer in answers.items():
            assert replace(answer, score=None) == replace(together[row_id], score=None)


def test_rows_without_ids_that_are_dealt_out_keep_their_ids_and_seeds(checkpoint, requests, tmp_path):
    """Rows get ids from file and line, so that calls and processes that share them out answer as one call does."""
    path = tmp_path / "rows.jsonl"
    rows = [{"image": str(request.path), "expression": request.expression} for request in requests]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n{bad\n")
    whole = ground(checkpoint, open_source([str(path)]), method="random")
    dealt = {}
    for index in range(3):
        shard = pickle.dumps(list(open_source([str(path)], shard=(index, 3))))
        dealt |= ground(checkpoint, pickle.loads(shard), method="random")
    assert len(whole) == len(rows) + 1 and dealt == whole
    assert len({tuple(row.kept or ()) for row in whole.values()}) > len(EXPRESSIONS)


def test_random_choice_changes_with_the_seed_only(checkpoint, requests):
    first, again, other = (ground(checkpoint, requests, method="random", seed=seed) for seed in (1, 1, 2))
    assert [row.kept for row in first.values()] == [row.kept for row in again.values()]
    assert [row.kept for row in first.values()] != [row.kept for row in other.values()]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_an_image_is_encoded_once_for_all_its_expressions(checkpoint, requests, encoded, batch_size):
    ground(checkpoint, requests, batch_size=batch_size)
    assert sum(encoded) == len(SIZES)


def test_sharing_nothing_changes_nothing(checkpoint, requests, encoded):
    each, off = (ground(checkpoint, requests, share=share) for share in ("each", "off"))
    assert sum(encoded) == len(SIZES) + len(requests)
    assert [replace(row, score=None) for row in each.values()] == [replace(row, score=None) for row in off.values()]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_rows_of_an_image_keep_the_union(checkpoint, requests, batch_size):
    each = ground(checkpoint, requests)
    for row_id, row in ground(checkpoint, requests, share="union", batch_size=batch_size).items():
        together = set().union(*(other.kept for other in each.values() if other.image == row.image))
        assert row.kept == sorted(together)
        assert (row.share, each[row_id].share) == ("union", None)


def test_a_union_needs_all_rows_of_an_image_and_one_drop(checkpoint, requests):
    shuffled = [requests[0], requests[3], requests[1]]
    reason = r"rows.jsonl:2: the rows about square.png do not follow each other: .* sort the rows by image"
    with pytest.raises(DeeplayerError, match=reason):
        ground(checkpoint, shuffled, share="union")
    reason = "method pyramiddrop drops in several steps, so it cannot run with --share union: use --share each"
    with pytest.raises(DeeplayerError, match=reason):
        ground(checkpoint, requests, share="union", method="pyramiddrop")


@pytest.mark.parametrize(
    ("n_rows", "most", "said"),
    [(3, 2, "with all expressions about its image: use --share each"), (1, 0, "even alone: use a smaller --max-tiles")],
)
def test_a_union_without_the_memory_for_it_fails_whole(checkpoint, requests, caplog, n_rows, most, said):
    grounder = Grounder(checkpoint, replace(SETTINGS, share="union"))
    with patch.object(grounder._engine, "prefill", LittleMemory(grounder._engine.prefill, most)):
        answers = list(grounder.ground(requests[:n_rows]))
    assert [row.error["type"] for row in answers] == ["out_of_memory"] * n_rows
    assert said in answers[0].error["message"]
    assert "continuing with" not in caplog.text


def test_batches_hold_as_many_tokens_as_allowed(checkpoint, requests, monkeypatch):
    sizes = []
    plain = Engine.prefill

    def counting(self, prefix, rows, n_new, **options):
        longest = max(len(row.expression_ids) for row in rows)
        sizes.append((prefix.n_shared + longest, len(rows)))
        return plain(self, prefix, rows, n_new, **options)

    monkeypatch.setattr(Engine, "prefill", counting)
    together = ground(checkpoint, requests)
    assert max(rows for _, rows in sizes) == 6  # all about the two images of one tile
    sizes.clear()
    long = replace(requests[1], expression="x" * 300)
    ground(checkpoint, [requests[0], long, *requests[2:]], batch_tokens=600)
    assert all(rows == 1 or rows * length <= 600 for length, rows in sizes)
    sizes.clear()
    few = ground(checkpoint, requests, batch_tokens=280)
    assert few == together or [row.answer for row in few.values()] == [row.answer for row in together.values()]
    assert all(rows == 1 or rows * length <= 280 for length, rows in sizes)
    assert max(rows for _, rows in sizes) == 2


def test_a_run_knows_what_not_pruning_would_cost(checkpoint, requests):
    costs = []
    for rows in (requests, requests[::3]):
        grounder = Grounder(checkpoint, replace(SETTINGS, keep=0.5))
        list(grounder.ground(rows))
        costs.append(grounder.savings)
    assert costs[0].unpruned / costs[0].pruned < costs[1].unpruned / costs[1].pruned
    prompts = [(row, len(row.expression)) for row in requests[::3]]
    assert len(prompts) == 4
    alone = Grounder(checkpoint, replace(SETTINGS, method="none"))
    list(alone.ground(requests[::3]))
    assert alone.savings.pruned == alone.savings.unpruned == costs[1].unpruned


def test_rows_say_what_was_kept(checkpoint, requests):
    for method, layer in (("none", None), ("deep-layer", 3)):
        for row in ground(checkpoint, requests, method=method).values():
            kept = row.visual_tokens if method == "none" else int(0.4 * row.visual_tokens)
            assert (row.method, row.layer, row.kept_tokens, len(row.kept)) == (method, layer, kept, kept)
            assert row.kept == sorted(set(row.kept))
            assert row.kept[-1] < row.visual_tokens == row.tiles.n_visual
            columns, rows = tile_grid((row.width, row.height), checkpoint.tiling)
            assert (row.tiles.columns, row.tiles.rows) == (columns, rows)
    plain = next(iter(ground(checkpoint, requests[:1], with_kept=False).values()))
    assert plain.kept is plain.tiles is None
    assert next(iter(ground(checkpoint, requests[:1], keep_tokens=2).values())).kept_tokens == 2


def test_failures_stay_in_their_place(checkpoint, requests, tmp_path):
    good = requests[0]
    rows = [
        good,
        replace(good, id="missing", path=tmp_path / "nothing.png"),
        {"id": "no expression", "image": str(good.path), "expression": " "},
        replace(good, id="another size", resolution_wh=(10, 10)),
        replace(good, id="outside", gold=(500.0, 500.0, 600.0, 600.0)),
        replace(good, id="too long", expression="word " * 1000),
        replace(good, id="good"),
    ]
    predictions = list(Grounder(checkpoint, SETTINGS).ground(rows))
    assert [row.id for row in predictions] == [good.id, *(getattr(row, "id", "no expression") for row in rows[1:])]
    kinds = [row.error["type"] if row.error else None for row in predictions]
    assert kinds == [None, "image_missing", "bad_expression", "size_mismatch", "box_outside", "prompt_too_long", None]
    assert predictions[4].iou == 0.0
    assert predictions[-1].answer == predictions[0].answer
    assert all(good.where in row.error["message"] for row in predictions if row.error and row.id != "no expression")


def test_a_mapping_is_a_row(checkpoint, requests):
    row = {"image": str(requests[0].path), "expression": EXPRESSIONS[0], "box": [0, 0, 9, 9], "split": "val"}
    (answer,) = Grounder(checkpoint, SETTINGS).ground([row])
    assert (answer.id, answer.iou, answer.meta) == (1, 0.0, {"split": "val"})
    assert answer.answer == ground(checkpoint, requests[:1])["square-0"].answer


@pytest.mark.parametrize("odd", [None, "x", b"x", ["a", 1], 1, object()])
def test_what_is_no_row_is_an_error_row(checkpoint, requests, odd):
    row = {"image": str(requests[0].path), "expression": "x"}
    answers = list(Grounder(checkpoint, SETTINGS).ground([row, odd, row, odd]))
    assert [answer.id for answer in answers] == [1, 2, 3, 4]
    assert [answer.error and answer.error["type"] for answer in answers] == [None, "bad_row", None, "bad_row"]
    assert answers[1].error["message"].startswith("row 2: a row must be a mapping")
    assert answers[0].answer == answers[2].answer
    assert [answer.source for answer in answers] == ["row 1", "row 2", "row 3", "row 4"]


@pytest.mark.parametrize("rows", [{"image": "a.png", "expression": "x"}, "rows.jsonl", b"{}", None, 3])
def test_one_row_or_a_path_is_not_several_rows(checkpoint, rows):
    with pytest.raises(DeeplayerError, match=r"ground\(\) takes several rows"):
        list(Grounder(checkpoint, SETTINGS).ground(rows))


def test_ids_may_repeat_within_a_call_and_start_again_in_the_next(checkpoint, requests):
    row = {"id": "a", "image": str(requests[0].path), "expression": "x"}
    grounder = Grounder(checkpoint, replace(SETTINGS, method="random"))
    first, second = grounder.ground([row, row])
    assert first.id == second.id == "a" and first.answer == second.answer and first.kept == second.kept
    anonymous = {name: value for name, value in row.items() if name != "id"}
    for _ in range(2):
        assert [answer.id for answer in grounder.ground([anonymous, anonymous])] == [1, 2]


def test_rows_carry_their_image_and_their_source(checkpoint, requests, tmp_path):
    good = requests[0]
    rows = [*requests, replace(good, id="long", expression="word " * 1000), replace(good, id="m", path=tmp_path / "m")]
    answers = ground(checkpoint, rows)
    assert len({answer.image_id for answer in answers.values()}) == len(SIZES) + 1
    assert answers["m"].image_id is None
    assert answers["long"].error and answers["long"].image_id == answers[good.id].image_id
    assert [answers[row.id].source for row in rows] == [row.where for row in rows]


def test_unknown_words_are_told_once(checkpoint, requests, caplog):
    broken = copy.copy(checkpoint)
    known = ByteTokenizer()
    known.unknown_id = known.encode_expression("x")[0]
    object.__setattr__(broken, "tokenizer", known)
    ground(broken, requests)
    (told,) = [record.getMessage() for record in caplog.records if "does not know" in record.getMessage()]
    assert "/rows.jsonl:3: tiny-" in told and "does not know the word" in told
    assert "boxes of such rows mean nothing" in told
    caplog.clear()
    ground(checkpoint, requests)
    assert "does not know" not in caplog.text


def test_a_model_with_a_scope_says_what_it_knows(checkpoint, requests, caplog):
    sizes = {request.id: Image.open(request.path).size for request in requests}
    known = sizes[requests[0].id]
    small = replace(checkpoint, scope=Scope("circles", (known,)))
    outside = [request for request in requests if sizes[request.id] != known]
    list(Grounder(small, SETTINGS).ground([request for request in requests if sizes[request.id] == known]))
    golden = [replace(request, gold=(0.0, 0.0, 4.0, 4.0)) for request in outside]  # their accuracy will say it
    assert len(list(Grounder(small, SETTINGS).ground(golden))) == len(golden)
    assert not caplog.records
    assert len(list(Grounder(small, SETTINGS).ground(requests))) == len(requests)
    (told,) = [record.getMessage() for record in caplog.records if "knows circles only" in record.getMessage()]
    assert (
        told.startswith(f"{outside[0].where}: tiny-")
        and "none of them has {} x {}".format(*sizes[outside[0].id]) in told
    )


def test_strict_refuses_words_that_the_model_does_not_know(checkpoint, requests):
    known = ByteTokenizer()
    known.unknown_id = known.encode_expression("w")[0]
    small = replace(checkpoint, tokenizer=known, scope=Scope("circles", tuple(SIZES.values())))
    rows = [replace(requests[0], id=number, expression=text) for number, text in enumerate(["a b", "a wow, ew"])]
    grounder = Grounder(small, SETTINGS)
    assert len(list(grounder.ground([*rows, *rows[1:]]))) == 3
    assert grounder.advice().startswith("the boxes of 2 rows mean nothing")
    strict = Grounder(small, replace(SETTINGS, strict=True))
    assert [row.id for row in strict.ground(rows[:1])] == [0]
    with pytest.raises(DeeplayerError, match=r"circles only, and not the words 'wow,', 'ew'.* leave out"):
        list(strict.ground(rows))


def test_max_tiles_is_the_users(checkpoint, requests):
    tall = [request for request in requests if request.image == "tall.png"]
    assert {row.visual_tokens for row in ground(checkpoint, tall).values()} == {16}  # 3 tiles and a thumbnail
    assert {row.visual_tokens for row in ground(checkpoint, tall, max_tiles=1).values()} == {4}


@pytest.mark.parametrize("name", ["batch_size", "max_new_tokens", "max_pixels", "max_tiles", "workers"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(DeeplayerError, match=f"--{name.replace('_', '-')} must be at least 1; it was 0"):
        Settings(**{name: 0})


@pytest.mark.parametrize("setting", [{"keep": 0.0}, {"keep_tokens": 0}, {"method": "fastvv"}])
def test_impossible_settings_are_refused_before_a_model_is_loaded(setting):
    with pytest.raises(DeeplayerError, match=str(next(iter(setting.values())))):
        Grounder.load("/no/such/model", **setting)


WRONG = [
    *[("keep", value, "a number") for value in ("0.1", True)],
    *[("layer", "6", "a whole number"), ("batch_size", 2.5, "a whole number"), ("keep_tokens", 3.7, "a whole number")],
    *[("seed", None, "a whole number"), ("max_tiles", True, "a whole number"), ("method", 3, "a name")],
    *[("prior", 3, "a path"), ("query", "first", "last or text"), ("share", "all", "each, union or off")],
    *[("with_kept", "yes", "True or False"), ("attention", "slow", "auto, flash")],
    *[("seed", 10**30, "less than 2^63"), ("keep_tokens", 2**63, "less than 2^63"), ("seed", -(2**63), "less than")],
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_setting_of_the_wrong_type_is_one_sentence(name, value, said):
    for make in (Settings, lambda **settings: Grounder.load("/no/such/model", **settings)):
        with pytest.raises(DeeplayerError) as caught:
            make(**{name: value})
        assert f"--{name.replace('_', '-')} must be {said}" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_setting_is_named():
    with pytest.raises(DeeplayerError, match="there is no setting 'kep': choose from method, keep,"):
        Grounder.load("/no/such/model", kep=0.1)


def test_settings_of_numpy_are_pythons():
    settings = Settings(keep=np.float64(0.25), layer=np.int64(3), with_kept=np.bool_(True), keep_tokens=np.int32(4))
    assert settings == Settings(keep=0.25, layer=3, with_kept=True, keep_tokens=4)
    assert orjson.dumps(settings.deciding()) == orjson.dumps(replace(settings, keep=0.25).deciding())
    assert type(settings.keep) is float and type(settings.layer) is int


class LittleMemory:
    """An engine's method that runs out of memory with more than ``most`` rows or images at once."""

    def __init__(self, method, most):
        self.method, self.most = method, most

    def __call__(self, *arguments):
        held = arguments[-2] if isinstance(arguments[-1], int) else arguments[0]
        if len(held) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.method(*arguments)


@pytest.mark.parametrize(("stage", "most"), [("prefill", 1), ("prefill", 3), ("encode", 1)])
def test_running_out_of_memory_makes_batches_smaller(checkpoint, requests, caplog, stage, most):
    plenty = ground(checkpoint, requests, batch_size=8)
    grounder = Grounder(checkpoint, replace(SETTINGS, batch_size=8))
    with patch.object(grounder._engine, stage, LittleMemory(getattr(grounder._engine, stage), most)):
        answers = {row.id: row for row in grounder.ground(requests)}
    assert list(answers) == list(plenty)
    assert {key: (row.answer, row.kept) for key, row in answers.items()} == {
        key: (row.answer, row.kept) for key, row in plenty.items()
    }
    assert "out of memory" in caplog.text


def test_a_row_that_does_not_fit_alone_is_an_error(checkpoint, requests):
    grounder = Grounder(checkpoint, SETTINGS)
    encode = grounder._engine.encode

    def few_tiles(tiles):
        if tiles.shape[1] > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return encode(tiles)

    with patch.object(grounder._engine, "encode", few_tiles):
        answers = list(grounder.ground(requests))
    assert [row.id for row in answers] == [request.id for request in requests]
    for row in answers:
        small = row.image in ("square.png", "other.png")
        assert row.status == "no_box" if small else row.error["type"] == "out_of_memory"


def test_a_lost_device_ends_the_run_and_a_defect_is_not_hidden(checkpoint, requests):
    for error, expected in [
        (RuntimeError("CUDA error: device-side assert triggered\nmore"), DeeplayerError),
        (RuntimeError("a defect"), RuntimeError),
    ]:
        grounder = Grounder(checkpoint, SETTINGS)
        with patch.object(grounder._engine, "decode", side_effect=error), pytest.raises(expected) as caught:
            list(grounder.ground(requests))
        assert str(error).splitlines()[0] in str(caught.value)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_numbers_that_overflow_are_an_error_that_names_the_layer(checkpoint, requests, layer):
    broken = copy.deepcopy(checkpoint)
    broken.model.model.language_model.layers[layer].mlp.down_proj.weight.data.fill_(torch.nan)
    answers = Grounder(broken, SETTINGS).ground(requests)
    for row in answers:
        assert row.status == "error" and row.error["type"] == "not_finite"
        assert f"in layer {layer + 1}:" in row.error["message"]


def test_a_stopped_run_hands_over_what_is_answered_and_nothing_more(checkpoint, requests):
    grounder = Grounder(checkpoint, replace(SETTINGS, batch_size=3))
    rows = []
    rows.extend(grounder.ground(requests, stopped=lambda: len(rows) >= 2))
    assert [row.id for row in rows] == [request.id for request in requests[:3]]
    assert list(Grounder(checkpoint, SETTINGS).ground(requests, stopped=lambda: True)) == []


@pytest.mark.parametrize(("share", "n_answered"), [("each", 4), ("union", 3)])
def test_a_stopped_run_waits_for_no_row(checkpoint, requests, share, n_answered):
    """A pipe's writer may be silent for ever; of its last image, a union may lack rows."""
    silence, writer = [], threading.Event()

    def arriving():
        yield from requests[:4]
        writer.wait(60)

    rows = ArrivingRows(arriving())
    assert rows.wait(10)
    answers = Grounder(checkpoint, replace(SETTINGS, share=share)).ground(
        rows, stopped=lambda: len(silence) > 20 or (rows.ready() and False) or silence.append(None)
    )
    assert [row.id for row in answers] == [request.id for request in requests[:n_answered]]
    writer.set()


def test_images_are_known_by_their_files_not_by_their_objects(checkpoint, requests, encoded):
    """Rows that come from another process, each with a copy of its image, share prefixes all the same."""
    grounder = Grounder(checkpoint, SETTINGS)
    (window,) = grounder.windows(requests)
    copies = [pickle.loads(pickle.dumps(loaded)) for loaded in window]
    assert copies[0].image is not copies[1].image
    answers = [row for batch in grounder.answer_window(copies) for row in batch]
    assert sum(encoded) == len(SIZES)
    assert [row.answer for row in answers] == [row.answer for row in ground(checkpoint, requests).values()]


def prefixes_alive(monkeypatch):
    """Weak references to every prefix that is computed from now on."""
    made, plain = [], Engine.prefix

    def noting(self, *arguments):
        prefix = plain(self, *arguments)
        made.append(weakref.ref(prefix.keys[0]))
        return prefix

    monkeypatch.setattr(Engine, "prefix", noting)
    return lambda: sum(one() is not None for one in made)


def test_a_prefix_has_one_owner(checkpoint, requests, monkeypatch):
    alive = prefixes_alive(monkeypatch)
    grounder = Grounder(checkpoint, replace(SETTINGS, batch_size=2))
    seen = [alive() for _ in grounder.ground(requests)]
    assert set(seen) == {1} and alive() == 0, "the next one is computed once the last one is gone"
    (window,) = grounder.windows(requests[:2])
    list(grounder.answer_window(window))
    assert alive() == 1
    grounder.release()
    assert alive() == 0


def test_running_out_of_memory_frees_the_failed_batch_first(checkpoint, requests, monkeypatch):
    alive = prefixes_alive(monkeypatch)
    grounder, held = Grounder(checkpoint, SETTINGS), []
    monkeypatch.setattr(Scheduler, "retreat", lambda self, batch: held.append(alive()) or Failure(batch, "told"))

    def prefill(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with patch.object(grounder._engine, "prefill", prefill):
        answers = list(grounder.ground(requests))
    assert {row.error["type"] for row in answers} == {"out_of_memory"}
    assert set(held) == {0}


def test_threads_that_share_a_grounder_get_the_answers_of_their_own_rows(checkpoint, requests, monkeypatch):
    grounder, found = Grounder(checkpoint, replace(SETTINGS, batch_size=2)), {}
    by_thread = [requests[start:] + requests[:start] for start in (0, 3, 6, 9)]
    expected = [[(one.id, one.answer, one.kept) for one in grounder.ground(rows)] for rows in by_thread]

    prefix, inside, at_once = Engine.prefix, [], set()

    def slow_prefix(*given):
        inside.append(given)
        time.sleep(0.01)
        at_once.add(len(inside))
        inside.pop()
        return prefix(*given)

    monkeypatch.setattr(Engine, "prefix", slow_prefix)

    def answer(number):
        found[number] = [(one.id, one.answer, one.kept) for one in grounder.ground(by_thread[number])]

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(len(by_thread))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.get(number) for number in range(len(by_thread))] == expected
    assert at_once == {1}
