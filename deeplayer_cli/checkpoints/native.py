"""The native layout, that of transformers (``model_type: internvl``): the ``-hf`` checkpoints and the demo."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig, PreTrainedConfig, Qwen2Config
from transformers.utils.chat_template_utils import render_jinja_template

from deeplayer_cli.checkpoints.files import read_json, read_text
from deeplayer_cli.checkpoints.layout import Layout, Scope, refuse_bad_config, tokens_per_tile
from deeplayer_cli.checkpoints.tokenizer import FastTokenizer, Tokenizer
from deeplayer_cli.checkpoints.weights import TensorRule
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, QUESTION, GroundingPrompt
from deeplayer_cli.models.internvl.tiling import Tiling
from deeplayer_cli.models.internvl.vision import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from pathlib import Path

_MAX_TILES = 6  # as in the official grounding evaluation
_TEXT_CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config}
_ROPE = {"rope_theta", "rope_scaling"}  # the text configurations read these keys, but have no fields of these names

# Old names first. They follow huggingface/transformers, ``conversion_mapping.py`` ("llava").
RULES = (
    TensorRule("language_model.lm_head.{rest}", ("lm_head.{rest}",)),
    TensorRule("language_model.model.{rest}", ("model.language_model.{rest}",)),
    TensorRule("vision_tower.{rest}", ("model.vision_tower.{rest}",)),
    TensorRule("multi_modal_projector.{rest}", ("model.multi_modal_projector.{rest}",)),
    TensorRule("model.{rest}", ("model.{rest}",)),
    TensorRule("lm_head.{rest}", ("lm_head.{rest}",)),
)


def read(folder: Path, config: dict[str, Any]) -> Layout:
    """Describe a checkpoint folder in the native layout.

    Args:
        folder: folder with the files of tokenizer, chat template and image processor.
        config: content of its ``config.json``.

    Raises:
        DeeplayerError: a file is missing, or a value in it is not supported. The message names the file or value.
    """
    path = folder / "config.json"
    tokenizer = FastTokenizer.read(folder)
    with refuse_bad_config(path):
        native = internvl_config(config)
        if native.image_token_id != tokenizer.token_id(IMAGE_CONTEXT):
            raise ValueError(f"image_token_id {native.image_token_id} is not the tokenizer's id of {IMAGE_CONTEXT}")
        tiling = read_tiling(folder)
        if (tiling.tile_size, tiling.tile_size) != tuple(native.vision_config.image_size):
            raise ValueError(
                f"image_size is {native.vision_config.image_size}, but a tile has {tiling.tile_size} pixels"
            )
        layer, scope = _grounding_layer(config, native.text_config.num_hidden_layers), Scope.from_config(config)
    return Layout(native, tokenizer, read_prompt(folder, tokenizer), tiling, RULES, layer, scope)


def _grounding_layer(config: dict[str, Any], n_layers: int) -> int | None:
    layer = config.get("grounding_layer")
    if layer is not None and not (type(layer) is int and 0 < layer < n_layers):
        raise ValueError(f"grounding_layer {layer!r} is not an integer from 1 to {n_layers - 1}")
    return layer


def internvl_config(config: dict[str, Any]) -> InternVLConfig:
    """Build transformers' configuration from the content of a native ``config.json``.

    Only fields that describe the model are used. Others are left out, because some of them load code, such as the
    name of an attention kernel.

    Raises:
        KeyError: a field is missing.
        ValueError: a value is not supported, or contradicts another.
    """
    text = config["text_config"]
    kind = _TEXT_CONFIGS.get(text["model_type"])
    if kind is None:
        raise ValueError(f"the language model must be {' or '.join(_TEXT_CONFIGS)}, not {text['model_type']!r}")
    if text.get("use_sliding_window"):
        raise ValueError("sliding-window attention is not supported")
    native = InternVLConfig(
        vision_config=InternVLVisionConfig(**_known(config["vision_config"], InternVLVisionConfig)),
        text_config=kind(**_known(text, kind)),
        **_known(config, InternVLConfig),
    )
    if native.image_seq_length != tokens_per_tile(native):
        raise ValueError(
            f"image_seq_length is {native.image_seq_length}, but a tile has {tokens_per_tile(native)} visual tokens"
        )
    return native


def read_tiling(folder: Path) -> Tiling:
    """Read from the image processor's configuration how images are cut into tiles.

    Args:
        folder: folder with ``preprocessor_config.json`` or ``processor_config.json``.

    Raises:
        DeeplayerError: the file is missing or not complete, it normalises pixels in another way than InternVL, or its
            tiles are not square.
    """
    path = folder / "preprocessor_config.json"
    if path.is_file():
        processor = read_json(path)
    else:  # transformers 5 keeps all parts of a processor in one file
        path = folder / "processor_config.json"
        processor = read_json(path).get("image_processor", {})
    try:
        mean, std = tuple(processor["image_mean"]), tuple(processor["image_std"])
        height, width = processor["size"]["height"], processor["size"]["width"]
        least, most = processor.get("min_patches", 1), processor["max_patches"]
        if not all(type(number) is int for number in (height, width, least, most)):
            raise ValueError
        tiling = Tiling(tile_size=height, min_tiles=least, max_tiles=min(_MAX_TILES, most))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeeplayerError(
            f"{path} does not have a valid size, max_patches, image_mean and image_std: download the checkpoint again"
        ) from error
    if (mean, std) != (IMAGENET_MEAN, IMAGENET_STD) or height != width:
        raise DeeplayerError(
            f"{path} has image_mean {mean}, image_std {std} and size {width}x{height}: InternVL has {IMAGENET_MEAN}, "
            f"{IMAGENET_STD} and square tiles, and nothing else is supported"
        )
    return tiling


def read_prompt(folder: Path, tokenizer: Tokenizer) -> GroundingPrompt:
    """Put the grounding question into the checkpoint's own chat template.

    Args:
        folder: folder with ``tokenizer_config.json`` and the chat template.
        tokenizer: tokenizer of the checkpoint.

    Raises:
        DeeplayerError: the template is missing or fails, or its text does not have the image and then the question,
            once each.
    """
    settings = read_json(folder / "tokenizer_config.json")
    path, template = _chat_template(folder, settings)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    special = {key: _content(value) for key, value in settings.items() if key.endswith("_token")}
    try:
        (text,), _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **special)
        bos = special.get("bos_token") or ""
        if bos and tokenizer.encode("") == [tokenizer.token_id(bos)]:
            text = text.removeprefix(bos)  # the tokenizer adds it
        return GroundingPrompt.cut(text.replace(IMAGE_CONTEXT, f"{IMAGE_START}{IMAGE_CONTEXT}{IMAGE_END}"))
    except (TemplateError, ValueError, TypeError, ArithmeticError) as error:
        raise DeeplayerError(f"the chat template in {path} does not give a grounding prompt ({error})") from error


def _chat_template(folder: Path, settings: dict[str, Any]) -> tuple[Path, str]:
    jinja, old, oldest = folder / "chat_template.jinja", folder / "chat_template.json", folder / "tokenizer_config.json"
    if jinja.is_file():
        return jinja, read_text(jinja)
    path, template = (
        (old, read_json(old).get("chat_template")) if old.is_file() else (oldest, settings.get("chat_template"))
    )
    if not isinstance(template, str):
        raise DeeplayerError(f"{path} has no chat template: add {jinja.name}")
    return path, template


def _content(token: Any) -> Any:
    """Return the text of a special token; the file stores it as text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _known(config: dict[str, Any], kind: type) -> dict[str, Any]:
    general = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(kind)} - general - {"vision_config", "text_config"}
    return {key: value for key, value in config.items() if key in own | _ROPE}
