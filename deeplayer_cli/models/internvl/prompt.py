"""What the model is asked, as text cut where the engine cuts it.

The text is that of InternVL's own grounding evaluation (OpenGVLab/InternVL, ``internvl_chat/eval/refcoco`` and
``internvl/conversation.py``). A prompt is held in three pieces, because everything before the expression is the same
for all expressions of one image and is computed once:

    before_image  <visual tokens>  after_image  <expression>  after_expression

The cuts fall on special tokens, so encoding piece by piece gives the same ids as encoding the whole text.
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
    """One grounding prompt around its two variable parts, the visual tokens and the expression."""

    before_image: str
    after_image: str
    after_expression: str

    @classmethod
    def cut(cls, text: str) -> GroundingPrompt:
        """Cut a whole prompt at its one ``<IMG_CONTEXT>`` and at its one ``{expression}``.

        Raises:
            ValueError: the text does not hold each of the two exactly once, in this order.
        """
        before_image, _, rest = text.partition(IMAGE_CONTEXT)
        after_image, _, after_expression = rest.partition(EXPRESSION)
        if text.count(IMAGE_CONTEXT) != 1 or text.count(EXPRESSION) != 1 or EXPRESSION not in rest:
            raise ValueError(f"a prompt needs one {IMAGE_CONTEXT} and, after it, one {EXPRESSION}: {text!r}")
        return cls(before_image, after_image, after_expression)

    def with_question(self, question: str) -> GroundingPrompt:
        """The same chat around another question, which names no expression."""
        before, _, after = QUESTION.partition(EXPRESSION)
        after_image = self.after_image.removesuffix(before) + question
        return GroundingPrompt(self.before_image, after_image, self.after_expression.removeprefix(after))


def internvl2_5(system_message: str = INTERNVL2_5_SYSTEM) -> GroundingPrompt:
    """The ``internvl2_5`` conversation template (InternVL 2.5 and 3) around the grounding question."""
    return GroundingPrompt.cut(
        f"<|im_start|>system\n{system_message}<|im_end|>\n"
        f"<|im_start|>user\n{IMAGE_START}{IMAGE_CONTEXT}{IMAGE_END}\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
