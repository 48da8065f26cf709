"""What a checkpoint is, apart from its weights: the same words for every layout."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import InternVLConfig, InternVLForConditionalGeneration

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeplayer_cli.checkpoints.tokenizer import Tokenizer
    from deeplayer_cli.checkpoints.weights import TensorRule
    from deeplayer_cli.models.internvl.prompt import GroundingPrompt
    from deeplayer_cli.models.internvl.tiling import Tiling


@dataclass(frozen=True)
class Layout:
    """A checkpoint as read from its small files.

    Attributes:
        config: the native configuration; its ``tie_word_embeddings`` says that the output head may be missing.
        tokenizer: the checkpoint's own.
        prompt: the grounding prompt in the checkpoint's chat format.
        tiling: how the checkpoint wants images cut.
        rules: how its tensors are called and cut.
        grounding_layer: the decoder layer, counted from 1, where the checkpoint says that its attention finds what an
            expression means.
    """

    config: InternVLConfig
    tokenizer: Tokenizer
    prompt: GroundingPrompt
    tiling: Tiling
    rules: tuple[TensorRule, ...]
    grounding_layer: int | None = None


def tokens_per_tile(config: InternVLConfig) -> int:
    """Visual tokens that one tile becomes: patches, thinned by pixel shuffle in both directions."""
    height, width = (
        int(side // patch * config.downsample_ratio)
        for side, patch in zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
    )
    return height * width


def empty_model(config: InternVLConfig, dtype: torch.dtype, attention: str) -> InternVLForConditionalGeneration:
    """Build the model without memory for its weights.

    Args:
        config: the native configuration.
        dtype: of the weights.
        attention: ``sdpa`` or ``eager``.

    Returns:
        A model in eval mode whose parameters lie on the ``meta`` device and whose buffers, which no checkpoint stores,
        are real and on the CPU.
    """
    with torch.device("meta"):
        model = InternVLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)
    text = model.model.language_model
    text.rotary_emb = type(text.rotary_emb)(text.config)
    return model.eval().requires_grad_(False)


@contextmanager
def refuse_bad_config(path: Path) -> Iterator[None]:
    """Turn what transformers says about a bad configuration into one sentence about the file.

    Raises:
        DeeplayerError: the block failed on a missing, mistyped or contradictory value.
    """
    try:
        yield
    except KeyError as error:
        raise DeeplayerError(f"{path} has no {error}: this is no complete InternVL configuration") from error
    except (
        TypeError,
        ValueError,
        IndexError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DeeplayerError(f"{path} does not describe an InternVL model ({reason})") from error
