"""The grounding prompt, as text in the pieces that the engine encodes.

The text is that of InternVL's own grounding evaluation (OpenGVLab/InternVL, ``internvl_chat/eval/refcoco`` and
``internvl/conversation.py``). A prompt has three pieces, because the part before the expression is the same for all
expressions of an image and is computed once:

    before_image  <visual tokens>  after_image  <expression>  after_expression

The pieces meet at special tokens, so encoding piece by piece gives the same ids as encoding the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass

EXPRESSION = "{expression}"
QUESTION = f"Please provide the bounding box coordinate of the region this sentence describes: <ref>{EXPRESSION}</ref>"

INTERNVL2_5_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)

IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"


@dataclass(frozen=True)
class GroundingPrompt:
    """The three fixed pieces of a grounding prompt.

    Attributes:
        before_image: text before the visual tokens.
        after_image: text between the visual tokens and the expression.
        after_expression: text after the expression.
    """

    before_image: str
    after_image: str
    after_expression: str

    @classmethod
    def cut(cls, text: str) -> GroundingPrompt:
        """Cut a whole prompt at ``<IMG_CONTEXT>`` and at ``{expression}``.

        Raises:
            ValueError: the text does not contain both exactly once, in this order.
        """
        before_image, _, rest = text.partition(IMAGE_CONTEXT)
        after_image, _, after_expression = rest.partition(EXPRESSION)
        if text.count(IMAGE_CONTEXT) != 1 or text.count(EXPRESSION) != 1 or EXPRESSION not in rest:
            raise ValueError(f"a prompt needs one {IMAGE_CONTEXT} and, after it, one {EXPRESSION}: {text!r}")
        return cls(before_image, after_image, after_expression)

    def with_question(self, question: str) -> GroundingPrompt:
        """Return the same prompt with another question in place of the grounding question; it has no expression."""
        before, _, after = QUESTION.partition(EXPRESSION)
        after_image = self.after_image.removesuffix(before) + question
        return GroundingPrompt(self.before_image, after_image, self.after_expression.removeprefix(after))


def internvl2_5(system_message: str = INTERNVL2_5_SYSTEM) -> GroundingPrompt:
    """Put the grounding question into the ``internvl2_5`` conversation template, that of InternVL 2.5 and 3."""
    return GroundingPrompt.cut(
        f"<|im_start|>system\n{system_message}<|im_end|>\n"
        f"<|im_start|>user\n{IMAGE_START}{IMAGE_CONTEXT}{IMAGE_END}\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
