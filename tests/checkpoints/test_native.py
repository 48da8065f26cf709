from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deeplayer_cli.checkpoints import load
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import QUESTION, GroundingPrompt
from deeplayer_cli.models.internvl.tiling import Tiling
from tests.checkpoints import tiny

if TYPE_CHECKING:
    from pathlib import Path

CPU = {"dtype": "float32", "device": "cpu"}
OLD_TO_NEW = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_native(tmp_path, tiny.model())


@pytest.mark.parametrize("text", ["llama", "qwen2"])
@pytest.mark.parametrize("vision", ["300m", "6b"])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip(tmp_path: Path, text: str, vision: str, tied: bool) -> None:
    native = tiny.model(text=text, vision=vision, tied=tied)
    checkpoint = load(str(tiny.write_native(tmp_path, native)), **CPU)
    assert torch.equal(tiny.logits(checkpoint.model), tiny.logits(native))
    assert (checkpoint.model.lm_head.weight is checkpoint.model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("new_names", [False, True])
def test_old_and_new_names(tmp_path: Path, new_names: bool) -> None:
    native = tiny.model()
    folder = tiny.write_native(tmp_path, native)
    tensors = {name: tensor.contiguous() for name, tensor in native.state_dict().items()}
    if not new_names:
        for old, new in OLD_TO_NEW.items():
            tensors = {name.replace(new, old) if name.startswith(new) else name: t for name, t in tensors.items()}
    assert any(name.startswith("model.") for name in tensors) == new_names
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(tiny.logits(load(str(folder), **CPU).model), tiny.logits(native))


def test_a_stored_head_is_never_tied_away(folder: Path) -> None:
    """InternVL3's -hf configs do not mention tying, which transformers 5 takes for yes."""
    tiny.edit_json(folder / "config.json", {"tie_word_embeddings": None})
    checkpoint = load(str(folder), **CPU)
    assert not checkpoint.model.config.tie_word_embeddings
    assert torch.equal(tiny.logits(checkpoint.model), tiny.logits(tiny.model()))


def test_a_head_that_is_missing_is_missed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(DeeplayerError, match=r"1 missing: lm_head\.weight"):
        load(str(folder), **CPU)


def test_prompt_tiling_and_tokens(folder: Path) -> None:
    checkpoint = load(str(folder), **CPU)
    start = "<|im_start|>user\n<img>"
    after_image, after_expression = QUESTION.split("{expression}")
    assert checkpoint.prompt == GroundingPrompt(
        start, f"</img>\n{after_image}", f"{after_expression}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert checkpoint.tiling == Tiling(tile_size=28, min_tiles=1, max_tiles=6, thumbnail=True)
    assert checkpoint.eos_id == tiny.tokenizer().token_to_id("<|im_end|>")
    assert checkpoint.tokens_per_tile == 4


def test_rope_of_older_configs(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    del config["text_config"]["rope_parameters"]
    config["text_config"] |= rope
    tiny.write_json(folder / "config.json", config)
    assert torch.equal(tiny.logits(load(str(folder), **CPU).model), tiny.logits(tiny.model()))


def test_what_a_config_says_about_code_is_not_read(folder: Path) -> None:
    evil = {"attn_implementation": "someone/kernel", "_attn_implementation": "someone/kernel", "auto_map": {"x": "y.Z"}}
    tiny.edit_json(folder / "config.json", evil | {f"text_config.{key}": value for key, value in evil.items()})
    config = load(str(folder), **CPU).model.config
    assert config._attn_implementation == config.text_config._attn_implementation == "sdpa"
    assert config.vision_config._attn_implementation in ("sdpa", "deeplayer_blocked")


def test_older_homes_of_the_chat_template(folder: Path) -> None:
    expected = load(str(folder), **CPU).prompt
    (folder / "chat_template.jinja").unlink()
    tiny.write_json(folder / "chat_template.json", {"chat_template": tiny.HF_TEMPLATE})
    assert load(str(folder), **CPU).prompt == expected
    (folder / "chat_template.json").unlink()
    tiny.edit_json(folder / "tokenizer_config.json", {"chat_template": tiny.HF_TEMPLATE})
    assert load(str(folder), **CPU).prompt == expected
    tiny.edit_json(folder / "tokenizer_config.json", {"chat_template": None})
    with pytest.raises(DeeplayerError, match=r"tokenizer_config\.json has no chat template: add chat_template\.jinja"):
        load(str(folder), **CPU)


def test_processor_in_one_file(folder: Path) -> None:
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    tiny.write_json(folder / "processor_config.json", {"image_processor": processor})
    assert load(str(folder), **CPU).tiling.max_tiles == 6


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ messages[0].content[1].text }}", "does not give a grounding prompt .*needs one <IMG_CONTEXT>"),
        (tiny.HF_TEMPLATE * 2, "does not give a grounding prompt"),
        ("{{ raise_exception('no system role') }}", r"does not give a grounding prompt \(no system role\)"),
        ("{% if %}", "does not give a grounding prompt"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "does not give a grounding prompt .*unsafe"),
    ],
)
def test_templates_that_fail(folder: Path, template: str, sentence: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(DeeplayerError, match=sentence):
        load(str(folder), **CPU)


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("config.json", {"text_config.model_type": "qwen3"}, "the language model must be llama or qwen2, not 'qwen3'"),
        ("config.json", {"text_config": None}, "config.json has no 'text_config'"),
        ("config.json", {"text_config.use_sliding_window": True}, "sliding-window attention is not supported"),
        ("config.json", {"image_seq_length": 256}, "image_seq_length is 256, but a tile has 4 visual tokens"),
        ("config.json", {"image_token_id": 4}, "image_token_id 4 is not the tokenizer's id of <IMG_CONTEXT>"),
        ("config.json", {"grounding_layer": 2}, "grounding_layer 2 is not an integer from 1 to 1"),
        ("config.json", {"grounding_layer": "1"}, "grounding_layer '1' is not an integer from 1 to 1"),
        ("config.json", {"grounding_layer": True}, "grounding_layer True is not an integer from 1 to 1"),
        ("config.json", {"vision_config.hidden_size": "x"}, "does not describe an InternVL model"),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}, r"has image_mean \(0\.5, 0\.5, 0\.5\)"),
        ("preprocessor_config.json", {"size": {"height": 28, "width": 56}}, "size 56x28"),
        ("preprocessor_config.json", {"size": {"height": 56, "width": 56}}, "but a tile has 56 pixels"),
        ("preprocessor_config.json", {"max_patches": "many"}, "does not have a valid size, max_patches"),
        ("preprocessor_config.json", {"min_patches": 7}, "preprocessor_config.json does not have a valid size"),
        ("preprocessor_config.json", {"image_std": None}, "does not have a valid size, max_patches"),
    ],
)
def test_refused_configs(folder: Path, file: str, changes: dict[str, Any], sentence: str) -> None:
    tiny.edit_json(folder / file, changes)
    with pytest.raises(DeeplayerError, match=sentence):
        load(str(folder), **CPU)
