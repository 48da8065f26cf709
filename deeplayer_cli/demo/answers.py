"""Questions and answers as token ids, and the loss on the answers.

Two forms of answer are mixed. The official question is answered as InternVL answers it, with the expression echoed
before the box. A question that ends with "Answer with four integers only." is answered with the numbers at once, so its
last prompt token must already know where to look: a model that only ever echoes first learns to ground in the echo, and
its prompt's own attention means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.boxes import to_permille
from deeplayer_cli.demo import packed, tokenizer
from deeplayer_cli.demo.dense import spread_loss
from deeplayer_cli.demo.scenes import SIDE
from deeplayer_cli.prompts import internvl2_5

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

    from deeplayer_cli.demo.expressions import Referral
    from deeplayer_cli.demo.scenes import Scene

_NO_ANSWER = -1


@dataclass(frozen=True)
class Wording:
    """The fixed parts of prompts and answers, as token ids."""

    tokens: PreTrainedTokenizerFast

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece of text."""
        encoded: list[int] = self.tokens(text, add_special_tokens=False)["input_ids"]
        return encoded

    @cached_property
    def before_image(self) -> list[int]:
        """P0."""
        return self.ids(internvl2_5(tokenizer.SYSTEM_MESSAGE).before_image)

    @cached_property
    def after_image(self) -> list[int]:
        """P1."""
        return self.ids(internvl2_5(tokenizer.SYSTEM_MESSAGE).after_image)

    def question(self, expression: str, *, numbers_only: bool) -> list[int]:
        """From the expression to the end of the prompt."""
        closing = internvl2_5(tokenizer.SYSTEM_MESSAGE).after_expression
        if numbers_only:
            closing = closing.replace("</ref>", f"</ref>{tokenizer.NUMBERS_ONLY}", 1)
        return self.ids(expression + closing)

    def answer(self, referral: Referral, *, numbers_only: bool) -> list[int]:
        """The right answer, up to and including ``<|im_end|>``."""
        numbers = ", ".join(map(str, to_permille(referral.box, (SIDE, SIDE))))
        if numbers_only:
            return self.ids(f"{numbers}<|im_end|>")
        return self.ids(f"<ref>{referral.expression}</ref><box>[[{numbers}]]</box><|im_end|>")


@dataclass(frozen=True)
class Batch:
    """Questions with their answers, padded: [images, questions, width] int64, ``wanted`` -1 outside of answers."""

    ids: torch.Tensor
    wanted: torch.Tensor


def make_batch(
    wording: Wording, scenes: Sequence[Scene], count: int, rng: random.Random, *, numbers_only: bool
) -> Batch:
    """``count`` questions about each scene, all in one form; a scene with fewer expressions repeats some."""
    rows = []
    for scene in scenes:
        referrals = list(scene.referrals)
        rng.shuffle(referrals)
        chosen = (referrals * count)[:count]
        rows.append(
            [
                (
                    wording.question(referral.expression, numbers_only=numbers_only),
                    wording.answer(referral, numbers_only=numbers_only),
                )
                for referral in chosen
            ]
        )
    width = max(len(question) + len(answer) for row in rows for question, answer in row)
    ids = torch.zeros(len(rows), count, width, dtype=torch.long)
    wanted = torch.full_like(ids, _NO_ANSWER)
    for i, row in enumerate(rows):
        for j, (question, answer) in enumerate(row):
            end = len(question) + len(answer)
            ids[i, j, :end] = torch.tensor(question + answer)
            wanted[i, j, len(question) - 1 : end - 1] = torch.tensor(answer)
    return Batch(ids, wanted)


def losses(
    model: InternVLForConditionalGeneration, wording: Wording, features: torch.Tensor, batch: Batch, sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Next-token losses on the answers: of their numbers, the targets spread over neighbours, and of their text.

    Args:
        model: the whole model.
        wording: its fixed text.
        features: projected visual tokens, [images, 144, hidden].
        batch: questions and answers.
        sigma: spread of the number targets, in thousandths of the image.
    """
    asked = batch.wanted != _NO_ANSWER
    logits = model.lm_head(_states(model, wording, features, batch.ids)[asked])
    wanted = batch.wanted[asked]
    number = wanted < tokenizer.NUMBERS
    text = torch.nn.functional.cross_entropy(logits[~number], wanted[~number])
    return spread_loss(logits[number], wanted[number], sigma), text


def answer_logits(
    model: InternVLForConditionalGeneration, wording: Wording, features: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Logits [images, questions, width, vocabulary] at every token of ``ids`` [images, questions, width]."""
    logits: torch.Tensor = model.lm_head(_states(model, wording, features, ids))
    return logits


def _states(
    model: InternVLForConditionalGeneration, wording: Wording, features: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    language = model.model.language_model
    before, after = (
        language.embed_tokens(torch.tensor(part)).expand(len(features), -1, -1)
        for part in (wording.before_image, wording.after_image)
    )
    return packed.forward(language, torch.cat((before, features, after), dim=1), language.embed_tokens(ids))
