from __future__ import annotations

import pytest

from deeplayer_cli.demo import scenes, tokenizer
from deeplayer_cli.demo.answers import Form, Wording

TOKENS = tokenizer.build()
WORDING = Wording(TOKENS)


def texts() -> list[str]:
    """All kinds of text that the model reads and writes."""
    referrals = [referral for seed in range(40) for referral in scenes.scene(seed).referrals]
    ids = [WORDING.before_image, WORDING.after_image]
    for referral in referrals:
        for form in Form:
            ids.append(WORDING.question(referral.expression, form))
            ids.append(WORDING.answer(referral, form, (200, 100)))
    assert TOKENS.unk_token_id not in {token for row in ids for token in row}
    return [*map(TOKENS.decode, ids), *(referral.expression for referral in referrals)]


def test_round_trips_lose_nothing() -> None:
    for text in texts():
        assert TOKENS.decode(WORDING.ids(text)) == text
    assert TOKENS.decode(WORDING.before_image).endswith("<|im_start|>user\n<img>")


def test_every_form_asks_in_its_own_words() -> None:
    referral = scenes.scene(0).referrals[0]
    asked = {form: TOKENS.decode(WORDING.question(referral.expression, form)) for form in Form}
    closing = "<|im_end|>\n<|im_start|>assistant\n"
    assert asked[Form.OFFICIAL] == f"{referral.expression}</ref>{closing}"
    assert asked[Form.NAME] == f"{referral.expression}</ref> Answer with the object only.{closing}"
    assert TOKENS.decode(WORDING.answer(referral, Form.NAME, (200, 100))) == f" {referral.unsaid}<|im_end|>"


def test_integers_are_tokens() -> None:
    assert [WORDING.ids(str(number)) for number in range(1001)] == [[number] for number in range(1001)]
    assert WORDING.ids("[[12, 0, 1000, 345]]")[1::2] == [12, 0, 1000, 345]


def test_only_special_tokens_are_special() -> None:
    assert set(TOKENS.all_special_tokens) == set(tokenizer.SPECIAL_TOKENS)
    assert TOKENS.decode(WORDING.ids("<ref>red</ref>"), skip_special_tokens=True) == "red"


@pytest.mark.parametrize("text", ["a zebra", "1001", "ünlike"])
def test_other_words_are_unknown(text: str) -> None:
    assert TOKENS.unk_token_id in WORDING.ids(text)
