"""A check that cannot fail checks nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deeplayer_cli.checkpoints.tokenizer import SentencePieceTokenizer
from deeplayer_cli.engine import Engine
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import internvl2_5
from deeplayer_cli.reference import verify as verification


def verdicts(reference_dir, **settings):
    checks = verification.verify(str(reference_dir / "checkpoint"), device="cpu", **settings)
    return {check.name: check.passed for check in checks}


def test_a_faithful_engine_passes(reference_dir):
    assert verdicts(reference_dir) == {
        "tensors": True,
        "tokenizer": None,  # a tokenizer of its own, that is on no record
        "prompt": True,
        "tiles": True,
        "answers, float32": True,
        "memory": True,
    }


def test_an_engine_that_answers_otherwise_fails(reference_dir, monkeypatch):
    plain = Engine.decode

    def other(self, prompts, max_new_tokens):
        return [replace(answer, token_ids=answer.token_ids[::-1]) for answer in plain(self, prompts, max_new_tokens)]

    monkeypatch.setattr(Engine, "decode", other)
    assert verdicts(reference_dir)["answers, float32"] is False


def test_nothing_to_compare_is_no_pass(reference_dir):
    with pytest.raises(DeeplayerError, match="nothing would be compared"):
        verdicts(reference_dir, rows=[])


def test_another_cut_of_tiles_fails(reference_dir, monkeypatch):
    monkeypatch.setattr(verification, "count_tiles", lambda resolution_wh, tiling: 3)
    assert verdicts(reference_dir)["tiles"] is False


@pytest.mark.parametrize("system_message", [None, "Something else."])
def test_the_real_tokenizer_is_recognised_and_its_prompt_compared(reference_dir, golden_checkpoint, system_message):
    tokenizer = SentencePieceTokenizer.read(reference_dir / "real_tokenizer")
    prompt = internvl2_5(system_message) if system_message else golden_checkpoint.prompt
    checkpoint = replace(golden_checkpoint, tokenizer=tokenizer, prompt=prompt)
    checkpoint.model.config.image_token_id, before = 92546, checkpoint.model.config.image_token_id
    try:
        assert verification._check_tokenizer(checkpoint).passed
        assert verification._check_prompt(checkpoint).passed is (system_message is None)
    finally:
        checkpoint.model.config.image_token_id = before
