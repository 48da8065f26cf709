"""Drafts: what the template guesses, and that no guess ever changes an answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.engine import Row
from deeplayer_cli.engine.decode import DecodeState
from deeplayer_cli.engine.drafting import no_draft
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.vision import normalize
from tests.engine.reference import PlainModel
from tests.engine.test_engine import EXPRESSIONS, N_NEW, N_VISUAL, ON_IMAGE, PLACES, make_engine, make_rows, tiles  # noqa: F401 - a fixture
from tests.tiny import tiny_checkpoint

TEMPLATE = TemplateDraft(opening=(1,), middle=(2, 3, 4), separator=(5, 6), closing=(7, 8, 9))
DOG = (20, 21)


@pytest.mark.parametrize(
    ("written", "guess"),
    [
        ((), (1, 20, 21, 2, 3, 4)),
        ((1, 20), (21, 2, 3, 4)),
        ((1, 99), (21, 2, 3, 4)),  # a slip: the rest may still come
        ((1, 99, 98, 97, 96, 95, 94), ()),
        ((1, 20, 21, 2, 3, 4), ()),  # a number is next, and nobody knows it
        ((1, 20, 21, 2, 3, 4, 50), (5, 6)),
        ((4, 50, 5), ()),
        ((4, 50, 5, 6, 51, 5, 6, 52), (5, 6)),
        ((4, 50, 51, 5, 6, 52, 5, 6, 53, 5, 6, 54), (7, 8, 9)),
        ((4, 50, 5, 6, 51, 5, 6, 52, 5, 6, 53, 7), ()),
    ],
)
def test_the_template_guesses_all_but_the_numbers(written, guess):
    assert TEMPLATE(DOG, written) == guess


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), min_size=7, max_size=7), st.integers(1, 8))
def test_as_much_is_taken_as_was_right(draft, greedy, limit):
    state = DecodeState(Row(0, ()), 9, limit, eos_id=3)
    state.take(draft, greedy, [0.5] * 7, torch.arange(7.0)[:, None])
    right = state.n_accepted
    assert state.n_cached == 9 + right and state.n_left == limit - len(state.token_ids)
    assert draft[:right] == greedy[:right] and (right == len(draft) or draft[right] != greedy[right])
    taken = greedy[: right + 1]
    until = [*taken, 3].index(3)
    assert state.token_ids == taken[: min(until, limit)]
    assert state.finished == (3 in taken[:limit] or len(state.token_ids) == limit)
    assert len(state.probabilities) == len(state.token_ids)
    assert [row.item() for row in state.watched] == list(range(len(state.token_ids)))


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


def answers(checkpoint, tiles, method, draft):  # noqa: F811
    engine = make_engine(checkpoint, method, draft=draft, positions="published")
    prefix = engine.prefix(engine.encode(tiles), PLACES.expand(len(tiles), -1, -1))
    return engine.answer(prefix, make_rows(checkpoint), N_NEW)


@pytest.mark.parametrize("method", ["none", "deep-layer", "deep-layer-mis", "pyramiddrop", "random"])
def test_drafted_answers_are_greedys_own(checkpoint, tiles, method):  # noqa: F811
    plain = answers(checkpoint, tiles, method, lambda *_: ())
    known = {tuple(row.expression_ids): one.token_ids for row, one in zip(make_rows(checkpoint), plain, strict=True)}

    def oracle(expression_ids, written):
        return known[tuple(expression_ids)][len(written) : len(written) + 3]

    def half_right(expression_ids, written):
        return [token ^ (place == 1) for place, token in enumerate(oracle(expression_ids, written))]

    def wrong(expression_ids, written):
        return [token ^ 1 for token in oracle(expression_ids, written)]

    for draft, accepted in (
        (oracle, 1.0),
        (half_right, 0.4),
        (wrong, 0.0),
        (TemplateDraft.from_tokenizer(checkpoint.tokenizer), 0),
    ):
        drafted = answers(checkpoint, tiles, method, draft)
        for one, other in zip(drafted, plain, strict=True):
            assert (one.token_ids, one.kept) == (other.token_ids, other.kept)
            assert torch.allclose(torch.tensor(one.probabilities), torch.tensor(other.probabilities), atol=1e-9)
            assert 0 <= one.n_accepted <= one.n_drafted and one.n_accepted >= (accepted - 0.15) * one.n_drafted
            assert one.n_passes <= other.n_passes - one.n_accepted
        assert accepted < 1 or all(one.n_accepted == one.n_drafted > 0 for one in drafted)


def test_primed_scores_with_the_drafts_last_token_whatever_the_answer_says(checkpoint, tiles):  # noqa: F811
    rows, plain = make_rows(checkpoint), PlainModel(checkpoint)
    draft = TemplateDraft.from_tokenizer(checkpoint.tokenizer)
    drafts = [list(draft(row.expression_ids, ()))[: N_NEW - 1] for row in rows]
    for index, answer in enumerate(answers(checkpoint, tiles, "primed", draft)):
        assert answer.token_ids[: len(drafts[index])] != drafts[index]  # the model of random weights says other things
        ids = plain.prompt_ids(EXPRESSIONS[index], N_VISUAL)
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        drafted = ids + drafts[index]
        assert answer.kept == plain.select(drafted, features, 3, [len(drafted) - 1], int(0.3 * N_VISUAL))
        assert answer.token_ids == plain.answer(ids, features, [(3, answer.kept)], N_NEW).token_ids


def test_primed_without_a_draft_scores_with_the_last_prompt_token(checkpoint, tiles):  # noqa: F811
    primed, deep_layer = (answers(checkpoint, tiles, method, no_draft) for method in ("primed", "deep-layer"))
    assert [one.kept for one in primed] == [one.kept for one in deep_layer]
