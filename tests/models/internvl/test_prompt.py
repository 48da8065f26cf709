from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deeplayer_cli.models.internvl.prompt import QUESTION, GroundingPrompt, internvl2_5

if TYPE_CHECKING:
    from pathlib import Path


def test_the_original_text(reference_dir: Path) -> None:
    prompt = internvl2_5()
    for sample in json.loads((reference_dir / "golden.json").read_text(encoding="utf-8"))["samples"]:
        text = f"{prompt.before_image}<IMAGE>{prompt.after_image}{sample['expression']}{prompt.after_expression}"
        assert text == sample["prompt_unexpanded"].replace("<image>", "<img><IMAGE></img>")
        assert QUESTION.format(expression=sample["expression"]) == sample["question"]


def test_a_system_message_of_ones_own() -> None:
    prompt = internvl2_5("Be brief.")
    assert prompt.before_image == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<img>"
    assert (prompt.after_image, prompt.after_expression) == (internvl2_5().after_image, internvl2_5().after_expression)


def test_cut() -> None:
    assert GroundingPrompt.cut("a<IMG_CONTEXT>b{expression}c") == GroundingPrompt("a", "b", "c")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a{expression}",
        "<IMG_CONTEXT>b",
        "{expression}<IMG_CONTEXT>",
        "<IMG_CONTEXT><IMG_CONTEXT>{expression}",
        "<IMG_CONTEXT>{expression}<IMG_CONTEXT>",
        "<IMG_CONTEXT>{expression}{expression}",
        "{expression}<IMG_CONTEXT>{expression}",
    ],
)
def test_cut_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="a prompt needs one <IMG_CONTEXT> and, after it, one "):
        GroundingPrompt.cut(text)
