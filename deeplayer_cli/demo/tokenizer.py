"""The demo model's tokenizer: one token per word, and one per integer from 0 to 1000.

A word's token includes its leading space, as in GPT-style vocabularies, so decoding joins the tokens and is lossless.
The integer n has the token id n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deeplayer_cli.demo.expressions import WORDS
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, QUESTION

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSTEM_MESSAGE = "Ground what is described."
NUMBERS_ONLY = " Answer with four integers only."
NAME_ONLY = " Answer with the object only."
NUMBERS = 1001  # the integers 0..1000, coordinates in thousandths of the image

UNKNOWN, END = "<unk>", "<|im_end|>"
SPECIAL_TOKENS = (
    *(UNKNOWN, "<s>", "</s>", "<|im_start|>", END, IMAGE_START, IMAGE_END, IMAGE_CONTEXT),
    *("<ref>", "</ref>", "<box>", "</box>"),
)

_PIECES = Regex(r" ?[A-Za-z]+|[0-9]+|\[\[|\]\]|, |\n|.")
_OTHERS = ("[[", "]]", ", ", "\n", " ", ".", ",", ":", "?", "system", "user", "assistant")

# It takes the roles and content types of Hugging Face's InternVL template. The system message is the demo's own.
CHAT_TEMPLATE = (
    f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n"
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build() -> PreTrainedTokenizerFast:
    """Build the tokenizer from its fixed vocabulary, without training data."""
    words = {f"{space}{word}" for word in WORDS for space in ("", " ")}
    for text in (SYSTEM_MESSAGE, QUESTION.partition("<ref>")[0], NUMBERS_ONLY, NAME_ONLY):
        words.update(piece for piece, _ in pre_tokenizers.Split(_PIECES, "isolated").pre_tokenize_str(text))
    vocabulary = _numbered([*map(str, range(NUMBERS)), UNKNOWN, *_OTHERS, *sorted(words - set(_OTHERS))])
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_PIECES, "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in (UNKNOWN, END)],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}
