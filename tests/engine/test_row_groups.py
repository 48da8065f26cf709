"""Rows about one image share keys and values: the groups alone, and the engine with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from deeplayer_cli.engine import Row, decode, row_groups
from deeplayer_cli.engine.decoder import attend
from deeplayer_cli.engine.kv_cache import CacheSlots, LayerCache, narrow_caches
from deeplayer_cli.engine.row_groups import RowGroups, close_gaps
from tests.engine.test_engine import N_NEW, PLACES, make_engine, tiles  # noqa: F401 - a fixture
from tests.tiny import tiny_checkpoint

CPU = torch.device("cpu")
IMAGES = st.lists(st.integers(0, 3), min_size=1, max_size=20)
N_SHARED, CAPACITY, T = 5, 4, 2


@given(IMAGES)
def test_rows_of_an_image_share_groups_with_few_empty_places(images):
    groups = RowGroups.by_image(images, CPU)
    assert len(set(groups.places)) == len(images)
    assert {place.group for place in groups.places} == set(range(len(groups)))
    assert all(0 <= place.number < groups.size <= 8 for place in groups.places)
    shared = {place.group: image for place, image in zip(groups.places, images, strict=True)}
    assert all(shared[place.group] == image for place, image in zip(groups.places, images, strict=True))
    assert [shared[group] for group in range(len(groups))] == sorted(shared.values())
    assert groups.size == 1 or len(groups) * groups.size <= len(images) / 0.75
    if len(set(images)) == 1:
        assert len(groups) == -(-len(images) // 8)


@given(st.sets(st.integers(0, 9), max_size=10))
def test_what_is_left_moves_into_the_gaps(left):
    moves = close_gaps(left)
    assert sorted(moves.get(number, number) for number in left) == list(range(len(left)))
    assert all(origin >= len(left) > target for origin, target in moves.items())


def test_the_example_of_the_docstring_is_what_is_computed():
    images, n_tokens = [0, 1, 0], 2
    groups, n_rows = RowGroups.by_image(images, CPU), len(images)
    slots = CacheSlots(groups, N_SHARED, n_tokens, N_SHARED)
    numbers = torch.arange(n_tokens).expand(n_rows, -1)
    step = slots.step(numbers, numbers, n_tokens, 1, torch.float32)
    held = [["    "] * (n_tokens * groups.size) for _ in range(len(groups))]
    lines = []
    for row, (group, number, column) in enumerate(zip(*(part.tolist() for part in groups.of_row), strict=True)):
        lines.append(f"row {row}: group {group}, number {number}, column {column}")
        for token, slot in enumerate(step.written[row].tolist()):
            held[group][slot - N_SHARED] = f"r{row}t{token}"
    for group, members in enumerate(groups.members.tolist()):
        shown = " | ".join([f"prefix of image {groups.of_groups(images)[group]}", *held[group]])
        lines.append(f"group {group}: members {' '.join(map(str, members))}, slots | {shown} |")
        for column, row in enumerate(members):
            for token in range(n_tokens):
                shared, own = (step.mask[group, 0, column * n_tokens + token] == 0).split([N_SHARED, len(held[group])])
                assert shared.all()
                if members.index(row) == column:  # padding of the members is not drawn
                    lines.append(f"group {group}: r{row}t{token} {' '.join('x' if seen else '.' for seen in own)}")
    drawn = [line.strip() for line in row_groups.__doc__.splitlines() if line.startswith("    ")]
    assert sorted(drawn) == sorted(lines)


def attended(images, rows, order=None):
    """What T tokens of each row attend to, in a cache of the groups; and in plain attention of each row alone."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    keys, values = draw(4, 2, N_SHARED, 8), draw(4, 2, N_SHARED, 8)
    queries, *own = (draw(len(images), heads, T, 8) for heads in (4, 2, 2))
    slots = CacheSlots(RowGroups.by_image(images, CPU), N_SHARED, CAPACITY, N_SHARED)
    cache = LayerCache.from_shared(slots, keys, values, images)
    numbers = torch.arange(T).expand(len(images), -1)
    cache.write(slots.step(numbers, numbers, T, 2, torch.float64).written, *own)
    (cache,) = narrow_caches([cache], rows)
    step, groups = cache.slots.step(numbers[rows], numbers[rows], T, 2, torch.float64), cache.slots.groups
    found = groups.unpack(attend(groups.pack(queries[rows]), *cache.upto(step.mask.shape[-1]), step.mask), T)
    causal = torch.ones(T, N_SHARED + T, dtype=torch.bool).tril(N_SHARED)
    alone = [
        scaled_dot_product_attention(
            queries[row],
            *(
                torch.cat([a[images[row]], b[row]], 1).repeat_interleave(2, 0)
                for a, b in zip((keys, values), own, strict=True)
            ),
            attn_mask=causal,
        )
        for row in rows
    ]
    of_rows = [torch.cat([keys[images[row]], own[0][row]], 1) for row in rows]
    assert torch.equal(cache.of_rows(T)[0], torch.stack(of_rows))
    return found, torch.stack(alone)


@given(IMAGES, st.data())
def test_attention_in_a_group_is_that_of_each_row(images, data):
    """Also after some rows have left, in any order."""
    rows = data.draw(st.lists(st.sampled_from(range(len(images))), min_size=1, unique=True))
    found, alone = attended(images, rows)
    assert (found - alone).abs().max() < 1e-12


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


def of_many(checkpoint, wanted):
    encode = checkpoint.tokenizer.encode_expression
    return [Row(image, encode(f"object {number}" * (1 + number % 3)), number) for number, image in enumerate(wanted)]


@pytest.mark.parametrize("method", ["none", "deep-layer", "fastv"])
def test_rows_leave_the_batch_when_they_finish(checkpoint, tiles, method, monkeypatch):  # noqa: F811
    rows = of_many(checkpoint, [0, 1, 0, 0, 1, 0, 0, 1, 0])
    engine, places = make_engine(checkpoint, method), PLACES.expand(2, -1, -1)
    prefix = engine.prefix(engine.encode(tiles), places)
    token_ids = [answer.token_ids for answer in engine.answer(prefix, rows, N_NEW)]
    # A token that ends these answers at different places.
    ends = {token: [ids.index(token) for ids in token_ids if token in ids] for ids in token_ids for token in ids}
    eos_id = max(ends, key=lambda token: len(set(ends[token])))
    assert len(set(ends[eos_id])) > 1 and len(ends[eos_id]) < len(rows)
    engine = make_engine(replace(checkpoint, eos_id=eos_id), method)
    widths, plain = [], decode.decode_pass
    monkeypatch.setattr(decode, "decode_pass", lambda *args: (widths.append(len(args[2])), plain(*args))[1])
    together = engine.answer(prefix, rows, N_NEW)
    assert sum(widths) == sum(answer.n_passes for answer in together)
    assert len({answer.n_passes for answer in together}) > 1
    for row, answer in zip(rows, together, strict=True):
        (alone,) = engine.answer(prefix, [row], N_NEW)
        assert (alone.token_ids, alone.kept, alone.n_passes) == (answer.token_ids, answer.kept, answer.n_passes)
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
        assert torch.allclose(answer.watched, alone.watched, atol=1e-6)


def test_without_pruning_no_row_copies_the_prefix(checkpoint, tiles, monkeypatch):  # noqa: F811
    monkeypatch.setattr(LayerCache, "of_rows", lambda *_: pytest.fail("copied the keys and values of every row"))
    engine, rows = make_engine(checkpoint, "none"), of_many(checkpoint, [0, 1, 0])
    engine.prefill(engine.prefix(engine.encode(tiles), PLACES.expand(2, -1, -1)), rows, N_NEW)


@pytest.mark.parametrize("method", ["none", "deep-layer"])
def test_a_row_that_overflows_spoils_no_row_of_its_image(tiles, method):  # noqa: F811
    checkpoint = tiny_checkpoint()
    engine = make_engine(checkpoint, method)
    rows = of_many(checkpoint, [0, 0, 1, 0, 1])
    bad = checkpoint.tokenizer.encode_expression("~")
    rows[1] = replace(rows[1], expression_ids=[*rows[1].expression_ids, *bad])
    checkpoint.model.model.language_model.embed_tokens.weight[bad] = torch.inf
    prefix = engine.prefix(engine.encode(tiles), PLACES.expand(2, -1, -1))
    answers = engine.answer(prefix, rows, N_NEW)
    assert [answer.broken_layer is None for answer in answers] == [True, False, True, True, True]
    for row, answer in zip(rows, answers, strict=True):
        (alone,) = engine.answer(prefix, [row], N_NEW)
        assert (alone.token_ids, alone.broken_layer) == (answer.token_ids, answer.broken_layer)
