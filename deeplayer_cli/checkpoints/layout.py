"""The description of a checkpoint without its weights, common to all layouts."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
class Scope:
    """All that a small model can be asked about, as its configuration states it under ``scope``.

    Attributes:
        knows: what it knows, as a phrase.
        image_sizes: (width, height) of the images that it knows, in pixels.
    """

    knows: str
    image_sizes: tuple[tuple[int, int], ...]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Scope | None:
        """Read the scope from the content of a ``config.json``; None without one.

        Raises:
            KeyError: a field is missing.
            TypeError: a field has the wrong type.
            ValueError: a size is not a pair.
        """
        scope = config.get("scope")
        if scope is None:
            return None
        return cls(str(scope["knows"]), tuple((int(width), int(height)) for width, height in scope["image_sizes"]))


@dataclass(frozen=True)
class Layout:
    """The description of a checkpoint, read from its small files.

    Attributes:
        config: transformers' configuration; with ``tie_word_embeddings``, the checkpoint need not store an output head.
        tokenizer: tokenizer of the checkpoint.
        prompt: the grounding prompt in the checkpoint's chat format.
        tiling: how images are cut into tiles for this model.
        rules: rules that map stored tensors to the model's parameters.
        grounding_layer: ``grounding_layer`` of the checkpoint's configuration: the decoder layer, counted from 1,
            whose attention shows best which object an expression refers to. None if the checkpoint names none.
        scope: all that the model can be asked about; None if the checkpoint states no limits.
    """

    config: InternVLConfig
    tokenizer: Tokenizer
    prompt: GroundingPrompt
    tiling: Tiling
    rules: tuple[TensorRule, ...]
    grounding_layer: int | None = None
    scope: Scope | None = None


def tokens_per_tile(config: InternVLConfig) -> int:
    """Compute the number of visual tokens of a tile: its patches, reduced by pixel shuffle in both directions."""
    height, width = (
        int(side // patch * config.downsample_ratio)
        for side, patch in zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
    )
    return height * width


def empty_model(config: InternVLConfig, dtype: torch.dtype, attention: str) -> InternVLForConditionalGeneration:
    """Build the model without allocating memory for its weights.

    Args:
        config: transformers' configuration.
        dtype: dtype of the weights.
        attention: ``sdpa`` or ``eager``.

    Returns:
        A model in eval mode. Its parameters are on the ``meta`` device. Its buffers, which no checkpoint stores, have
        values and are on the CPU.
    """
    with torch.device("meta"):
        model = InternVLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)
    text = model.model.language_model
    text.rotary_emb = type(text.rotary_emb)(text.config)
    return model.eval().requires_grad_(False)


@contextmanager
def refuse_bad_config(path: Path) -> Iterator[None]:
    """Turn errors about a bad configuration into one sentence that names the file; a context manager.

    Args:
        path: the configuration file.

    Raises:
        DeeplayerError: a value that the ``with`` block reads is missing, has the wrong type, or contradicts another.
    """
    try:
        yield
    except KeyError as error:
        raise DeeplayerError(f"{path} has no {error}: this InternVL configuration is not complete") from error
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
