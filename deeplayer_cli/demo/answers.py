"""Questions and answers as token ids, and the loss on the answers.

Three forms are mixed. The official question is answered as InternVL answers it, with the expression echoed before the
box. A question that ends with "Answer with four integers only." is answered with the numbers at once, so its
last prompt token must already know where to look: a model that only ever echoes first learns to ground in the echo, and
its prompt's own attention means nothing. And one that ends with "Answer with the object only." is answered with what
the expression leaves unsaid of the object's size, colour and shape, which only the picture can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property
from itertools import cycle
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from deeplayer_cli.boxes import to_permille
from deeplayer_cli.demo import packed, tokenizer
from deeplayer_cli.demo.dense import spread_loss
from deeplayer_cli.models.internvl.prompt import internvl2_5

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.demo.expressions import Referral
    from deeplayer_cli.demo.scenes import Scene


class Form(Enum):
    """What a question asks for, told by what follows its expression."""

    OFFICIAL = ""
    NUMBERS = tokenizer.NUMBERS_ONLY
    NAME = tokenizer.NAME_ONLY


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

    def question(self, expression: str, form: Form) -> list[int]:
        """From the expression to the end of the prompt."""
        closing = internvl2_5(tokenizer.SYSTEM_MESSAGE).after_expression
        return self.ids(expression + closing.replace("</ref>", f"</ref>{form.value}", 1))

    def answer(self, referral: Referral, form: Form, resolution: Resolution) -> list[int]:
        """The right answer about an image of some width and height, up to and including ``<|im_end|>``."""
        if form is Form.NAME:
            return self.ids(f" {referral.unsaid}<|im_end|>")
        numbers = ", ".join(map(str, to_permille(referral.box, resolution)))
        if form is Form.NUMBERS:
            return self.ids(f"{numbers}<|im_end|>")
        return self.ids(f"<ref>{referral.expression}</ref><box>[[{numbers}]]</box><|im_end|>")


class Part(IntEnum):
    """Of what a token is a part that the model should have foreseen."""

    NOTHING = 0
    EXPRESSION = 1
    NAME = 2
    NUMBER = 3
    TEXT = 4  # of an answer: its echo, brackets, commas and end


@dataclass(frozen=True)
class Batch:
    """Questions with their answers, one after the other, scene by scene.

    Attributes:
        ids: [tokens] int64.
        following: [tokens] int64, the next of ``ids``.
        parts: [tokens] int64, what ``following`` is a part of.
        lengths: [scenes, questions] int64, tokens of each question with its answer.
    """

    ids: torch.Tensor
    following: torch.Tensor
    parts: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True)
class Losses:
    """Next-token losses on a batch's expressions and answers; 0 where there is nothing of the kind."""

    expressions: torch.Tensor
    names: torch.Tensor
    numbers: torch.Tensor
    text: torch.Tensor


def make_batch(wording: Wording, scenes: Sequence[Scene], forms: tuple[Form, ...], rng: random.Random) -> Batch:
    """Questions of the given forms about each scene; one with fewer expressions repeats some."""
    ids, parts, lengths = list[int](), list[Part](), list[int]()
    for scene in scenes:
        referrals = list(scene.referrals)
        rng.shuffle(referrals)
        for referral, form in zip(cycle(referrals), forms):
            question = wording.question(referral.expression, form)
            answer = wording.answer(referral, form, scene.image.size)
            words = len(wording.ids(referral.expression))
            ids += question + answer
            parts += [Part.NOTHING] + [Part.EXPRESSION] * (words - 1) + [Part.NOTHING] * (len(question) - words)
            parts += [_part(token, form) for token in answer]
            lengths.append(len(question) + len(answer))
    return Batch(
        ids=torch.tensor(ids),
        following=torch.tensor([*ids[1:], 0]),
        parts=torch.tensor([*parts[1:], Part.NOTHING]),
        lengths=torch.tensor(lengths).view(len(scenes), -1),
    )


def _part(token: int, form: Form) -> Part:
    if form is Form.NAME:
        return Part.NAME
    return Part.NUMBER if token < tokenizer.NUMBERS else Part.TEXT


def losses(
    model: InternVLForConditionalGeneration, wording: Wording, features: torch.Tensor, batch: Batch, sigma: float
) -> Losses:
    """Run the model over a batch.

    Args:
        model: the whole model.
        wording: its fixed text.
        features: projected visual tokens, [scenes, tiles * 144, hidden].
        batch: questions and answers.
        sigma: spread of the number targets, in thousandths of the image.
    """
    told = batch.parts != Part.NOTHING
    logits = model.lm_head(_states(model, wording, features, batch.ids, batch.lengths)[told])
    following, parts = batch.following[told], batch.parts[told]

    def mean(part: Part) -> torch.Tensor:
        of = parts == part
        return functional.cross_entropy(logits[of], following[of]) if of.any() else logits.new_zeros(())

    number = parts == Part.NUMBER
    numbers = spread_loss(logits[number], following[number], sigma) if number.any() else logits.new_zeros(())
    return Losses(mean(Part.EXPRESSION), mean(Part.NAME), numbers, mean(Part.TEXT))


def answer_logits(
    model: InternVLForConditionalGeneration,
    wording: Wording,
    features: torch.Tensor,
    ids: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Logits [tokens, vocabulary] at every token of ``ids`` and ``lengths``, which are as in ``Batch``."""
    logits: torch.Tensor = model.lm_head(_states(model, wording, features, ids, lengths))
    return logits


def _states(
    model: InternVLForConditionalGeneration,
    wording: Wording,
    features: torch.Tensor,
    ids: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    language = model.model.language_model
    before, after = (
        language.embed_tokens(torch.tensor(part)).expand(len(features), -1, -1)
        for part in (wording.before_image, wording.after_image)
    )
    prefix = torch.cat((before, features, after), dim=1)
    return packed.forward(language, prefix, language.embed_tokens(ids), lengths)
