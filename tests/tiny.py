"""Tiny InternVL models with random weights, of two decoder families, built in memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
)

from deeplayer_cli.checkpoints import Checkpoint
from deeplayer_cli.models.internvl.prompt import internvl2_5
from deeplayer_cli.models.internvl.tiling import Tiling

if TYPE_CHECKING:
    from collections.abc import Sequence

SPECIAL = ("<IMG_CONTEXT>", "<img>", "</img>", "<ref>", "</ref>", "<box>", "</box>", "<|im_end|>", "<|im_start|>")
FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config}
ROPE = {  # llama's is that of the published 8B
    "llama": {"rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "qwen2": {},
}


class ByteTokenizer:
    """A tokenizer with 3 reserved ids, then one id per byte, then the special tokens."""

    sha256 = "bytes"
    unknown_id = None

    def __init__(self) -> None:
        self.ids = {token: 259 + index for index, token in enumerate(SPECIAL)}

    def encode(self, text: str) -> list[int]:
        return [1, *self.encode_piece(text)]

    def encode_piece(self, text: str) -> list[int]:
        parts = re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text)
        return [token for part in parts for token in ([self.ids[part]] if part in self.ids else self._bytes(part))]

    def encode_expression(self, text: str) -> list[int]:
        return self._bytes(text)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token - 3 for token in ids if 3 <= token < 259).decode(errors="replace")

    def token_id(self, token: str) -> int:
        return self.ids[token]

    def _bytes(self, text: str) -> list[int]:
        return [3 + byte for byte in text.encode()]


def tiny_checkpoint(family: str = "llama", *, dtype: torch.dtype = torch.float64, layers: int = 8) -> Checkpoint:
    """Build a model with ``layers`` decoder layers, and 4 visual tokens per tile of 56 x 56 pixels."""
    text = FAMILIES[family](
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=259 + len(SPECIAL),
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        **ROPE[family],
    )
    vision = InternVLVisionConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[56, 56],
        patch_size=[14, 14],
        use_mean_pooling=True,
    )
    tokenizer = ByteTokenizer()
    config = InternVLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.token_id("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config).to(dtype).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():  # so large that the answer depends on attention
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(noise * 2 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1 + 0.1 * noise)
    return Checkpoint(
        name=f"tiny-{family}",
        model=model,
        tokenizer=tokenizer,
        prompt=internvl2_5("You see."),
        tiling=Tiling(tile_size=56),
        eos_id=tokenizer.token_id("<|im_end|>"),
    )
