"""Training questions and answers as token ids, and the losses on them.

Questions have three forms. The text after the expression shows the form:

* ``OFFICIAL``: InternVL's question. The answer repeats the expression, then gives the box.
* ``NUMBERS``: the question ends with "Answer with four integers only." The answer is the four numbers, so the last
  prompt token must already locate the object. A model that always repeats the expression first would learn to locate
  the object during the repetition only. The attention of its prompt tokens would then not show the object.
* ``NAME``: the question ends with "Answer with the object only." The answer gives the attributes (size, colour, shape)
  that the expression does not mention. Only the image shows them.
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
    """The forms of a question. The value is the text that follows the expression."""

    OFFICIAL = ""
    NUMBERS = tokenizer.NUMBERS_ONLY
    NAME = tokenizer.NAME_ONLY


@dataclass(frozen=True)
class Wording:
    """Encodes prompts and answers as token ids.

    Attributes:
        tokens: the demo's tokenizer.
    """

    tokens: PreTrainedTokenizerFast

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text; adds no special tokens."""
        encoded: list[int] = self.tokens(text, add_special_tokens=False)["input_ids"]
        return encoded

    @cached_property
    def before_image(self) -> list[int]:
        """Token ids of the prompt before the visual tokens (P0)."""
        return self.ids(internvl2_5(tokenizer.SYSTEM_MESSAGE).before_image)

    @cached_property
    def after_image(self) -> list[int]:
        """Token ids of the prompt between the visual tokens and the expression (P1)."""
        return self.ids(internvl2_5(tokenizer.SYSTEM_MESSAGE).after_image)

    def question(self, expression: str, form: Form) -> list[int]:
        """Return the token ids of the prompt from the expression to the end."""
        closing = internvl2_5(tokenizer.SYSTEM_MESSAGE).after_expression
        return self.ids(expression + closing.replace("</ref>", f"</ref>{form.value}", 1))

    def answer(self, referral: Referral, form: Form, resolution: Resolution) -> list[int]:
        """Return the token ids of the right answer, including the final ``<|im_end|>``.

        Args:
            referral: the expression and the object that it refers to.
            form: the form of the question.
            resolution: width and height of the image, in pixels.
        """
        if form is Form.NAME:
            return self.ids(f" {referral.unsaid}<|im_end|>")
        numbers = ", ".join(map(str, to_permille(referral.box, resolution)))
        if form is Form.NUMBERS:
            return self.ids(f"{numbers}<|im_end|>")
        return self.ids(f"<ref>{referral.expression}</ref><box>[[{numbers}]]</box><|im_end|>")


class Part(IntEnum):
    """The part of the text that a predicted token belongs to. Tokens of part ``NOTHING`` have no loss."""

    NOTHING = 0
    EXPRESSION = 1
    NAME = 2
    NUMBER = 3
    TEXT = 4  # the rest of an answer: the repeated expression, brackets, commas and end


@dataclass(frozen=True)
class Batch:
    """Questions with their answers, concatenated scene by scene. Each starts with the words of its expression.

    Attributes:
        ids: [tokens] int64, token ids.
        following: [tokens] int64, the id that follows each token: the target of its prediction.
        parts: [tokens] int64, the ``Part`` of each token in ``following``.
        lengths: [scenes, questions] int64, number of tokens of each question with its answer.
    """

    ids: torch.Tensor
    following: torch.Tensor
    parts: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True)
class Losses:
    """Next-token losses on a batch: scalar float tensors, 0 where the batch has no such token.

    Attributes:
        expressions: mean cross-entropy on the words of the expressions, except each first word.
        names: mean cross-entropy on the answers of form ``NAME``.
        numbers: ``spread_loss`` on the numbers of the boxes.
        text: mean cross-entropy on the other tokens of the answers.
    """

    expressions: torch.Tensor
    names: torch.Tensor
    numbers: torch.Tensor
    text: torch.Tensor


def make_batch(wording: Wording, scenes: Sequence[Scene], forms: tuple[Form, ...], rng: random.Random) -> Batch:
    """Make questions about scenes, with their answers.

    Args:
        wording: encodes the text.
        scenes: the scenes of the batch.
        forms: the forms of the questions about each scene. If a scene has fewer expressions than that, expressions
            repeat.
        rng: shuffles the expressions of each scene.
    """
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
    """Run the model over a batch and compute its next-token losses.

    Args:
        model: the whole demo model.
        wording: encodes the fixed text of the prompt.
        features: projected visual tokens, [scenes, tiles * 144, hidden].
        batch: questions and answers about the scenes.
        sigma: standard deviation of the number targets, in thousandths of the image.
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
    """Compute the next-token logits at every token of questions and answers.

    Args:
        model: the whole demo model.
        wording: encodes the fixed text of the prompt.
        features: projected visual tokens, [scenes, tiles * 144, hidden].
        ids: [tokens] int64, as in ``Batch``.
        lengths: [scenes, questions] int64, as in ``Batch``.

    Returns:
        [tokens, vocabulary], in the model's dtype.
    """
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
