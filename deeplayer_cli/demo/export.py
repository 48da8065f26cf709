"""Export of a trained model as a checkpoint folder in the native InternVL layout."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING

import orjson
import torch
from transformers import GenerationConfig

from deeplayer_cli import checkpoints
from deeplayer_cli.demo.looking import grounding_layer
from deeplayer_cli.demo.scenes import COMPACT, LONG, SIDE
from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.models.internvl.vision import IMAGENET_MEAN, IMAGENET_STD
from deeplayer_cli.sinks import disk

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

_PREPROCESSOR = {
    "image_processor_type": "GotOcr2ImageProcessor",
    "crop_to_patches": True,
    "min_patches": 1,
    "max_patches": 2,
    "size": {"height": SIDE, "width": SIDE},
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
}

SCOPE = {"knows": "scenes of coloured shapes", "image_sizes": sorted(set(COMPACT + LONG))}


def export(model: InternVLForConditionalGeneration, tokens: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights in bfloat16, configuration, tokenizer with its chat template, and image preprocessing.

    Then load the written checkpoint, measure its attention to the target (see ``grounding_layer``), and write the
    layer with the largest share to ``config.json`` as ``grounding_layer``, and what the model knows as ``scope``.

    Args:
        model: model in any floating dtype; it is not changed.
        tokens: tokenizer of the model.
        folder: the checkpoint folder; it appears as a whole, once all of its files are written.

    Raises:
        DeeplayerError: the folder exists and is not empty, or the system refuses.
    """
    refuse_model(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(str(folder)):
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        try:
            _write(model, tokens, partial)
            disk.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def refuse_model(folder: Path) -> None:
    """Refuse a checkpoint folder that holds files already.

    Raises:
        DeeplayerError: it does.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DeeplayerError(f"{folder} exists: move it away, or train in another folder")


def _write(model: InternVLForConditionalGeneration, tokens: PreTrainedTokenizerFast, folder: Path) -> None:
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    rounded.generation_config = GenerationConfig(eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id)
    rounded.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # which safetensors lets only their owner read
        shutil.copymode(folder / "config.json", weights)
    tokens.save_pretrained(folder, save_jinja_files=False)
    (folder / "preprocessor_config.json").write_bytes(orjson.dumps(_PREPROCESSOR, option=orjson.OPT_INDENT_2))
    _note_layer_and_scope(folder)


def _note_layer_and_scope(folder: Path) -> None:
    path = folder / "config.json"
    layer = grounding_layer(checkpoints.load(str(folder), device="cpu"))
    config = orjson.loads(path.read_bytes()) | {"grounding_layer": layer, "scope": SCOPE}
    path.write_bytes(
        orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    )
