from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deeplayer_cli.checkpoints import load
from deeplayer_cli.checkpoints.files import StoredTensor
from deeplayer_cli.checkpoints.layout import empty_model
from deeplayer_cli.checkpoints.original import grouped, internvl_config, read
from deeplayer_cli.checkpoints.sizes import INTERNVL3, MINI, SIZES
from deeplayer_cli.checkpoints.weights import plan
from deeplayer_cli.device.packed_linear import plain_weight
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import internvl2_5
from tests.checkpoints import tiny

if TYPE_CHECKING:
    from pathlib import Path

CPU = {"dtype": "float32", "device": "cpu"}


def test_the_8b_tensors_map_one_to_one(reference_dir: Path) -> None:
    """573 stored tensors fill 733 parameters: no memory is used, names and shapes are all there is."""
    published = json.loads((reference_dir / "internvl2_5_8b_tensor_shapes.json").read_text())
    folder = reference_dir / "checkpoint"
    tiny_config = json.loads((folder / "config.json").read_text())
    size = next(size for size in SIZES if size.name == "8b")
    model = empty_model(internvl_config(size.original_config(), 92546), torch.bfloat16, "sdpa")
    # The rules depend on the width of a head: take those of the tiny checkpoint with the real language model.
    rules = read(folder, tiny_config | {"llm_config": size.original_config()["llm_config"]}).rules
    stored = {name: StoredTensor(folder, tuple(shape)) for name, shape in published["tensors"].items()}
    moves = plan(folder, stored, rules, model)
    targets = [target for move in moves for target in move.targets]
    assert len(moves) == published["n_tensors"] == 573
    assert len(targets) == len(set(targets)) == 733
    assert set(targets) == set(model.state_dict())


@pytest.mark.parametrize("size", (*SIZES, *INTERNVL3, MINI), ids=lambda size: size.hub_name)
def test_parameter_counts(size: Any) -> None:
    model = empty_model(internvl_config(size.original_config(), 5), torch.bfloat16, "sdpa")
    assert sum(parameter.numel() for parameter in model.parameters()) == size.parameters


def test_grouped_split_by_hand() -> None:
    rows = ["q00", "q01", "k0", "v0", "q10", "q11", "k1", "v1"]  # two key heads, two queries each, head width 1
    wqkv = torch.arange(8.0)[:, None]
    query, key, value = ([rows[int(row)] for row in part[:, 0]] for part in grouped(wqkv, kv_heads=2, head_dim=1))
    assert (query, key, value) == (["q00", "q01", "q10", "q11"], ["k0", "k1"], ["v0", "v1"])


@pytest.mark.parametrize("vision", ["300m", "6b"])
@pytest.mark.parametrize("tied", [False, True])
def test_qwen2_and_both_vision_models(tmp_path: Path, vision: str, tied: bool) -> None:
    native = tiny.model(vision=vision, tied=tied)
    checkpoint = load(str(tiny.write_original(tmp_path, native)), **CPU)
    assert torch.equal(tiny.logits(checkpoint.model), tiny.logits(native))
    assert (checkpoint.model.lm_head.weight is checkpoint.model.get_input_embeddings().weight) == tied
    assert checkpoint.prompt == internvl2_5()
    assert (checkpoint.tokens_per_tile, checkpoint.tiling.tile_size) == (4, 28)
    assert checkpoint.tokenizer.encode("man") == checkpoint.tokenizer.encode_piece("man")  # no BOS


def test_buffers_survive_the_meta_device(tmp_path: Path) -> None:
    native = tiny.model()
    checkpoint = load(str(tiny.write_original(tmp_path, native)), **CPU)
    buffers = dict(checkpoint.model.named_buffers())
    assert buffers.keys() == dict(native.named_buffers()).keys()
    for name, buffer in native.named_buffers():
        assert torch.equal(buffers[name], buffer), name


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp64"])
def test_weights_are_rounded_once(tmp_path: Path, dtype: str) -> None:
    native = tiny.model()
    checkpoint = load(str(tiny.write_original(tmp_path, native)), dtype=dtype, device="cpu")
    state = checkpoint.model.state_dict()
    for name, tensor in native.state_dict().items():
        assert torch.equal(plain_weight(state[name]), tensor.to(checkpoint.model.dtype)), name
    assert torch.isfinite(tiny.logits(checkpoint.model)).all()


def test_loaded_weights_outlive_their_files(tmp_path: Path) -> None:
    native = tiny.model()
    checkpoint = load(str(tiny.write_original(tmp_path, native)), **CPU)
    (tmp_path / "model.safetensors").write_bytes(b"")  # a memory map would now be a crash
    assert torch.equal(tiny.logits(checkpoint.model), tiny.logits(native))


def test_shards(tmp_path: Path) -> None:
    native = tiny.model()
    tiny.write_original(tmp_path, native)
    shard(tmp_path)
    assert torch.equal(tiny.logits(load(str(tmp_path), **CPU).model), tiny.logits(native))


def test_system_message_of_the_config(tmp_path: Path) -> None:
    tiny.write_original(tmp_path, tiny.model())
    tiny.edit_json(tmp_path / "config.json", {"system_message": "Be brief."})
    assert load(str(tmp_path), **CPU).prompt == internvl2_5("Be brief.")


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in halves.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    weight_map = {name: file for file, members in halves.items() for name in members}
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"template": "internlm2-chat"}, "config.json has template 'internlm2-chat'; only 'internvl2_5'"),
        ({"ps_version": None}, "config.json has ps_version 'v1'; only 'v2'"),
        ({"select_layer": -4}, "config.json has select_layer -4; only -1"),
        (
            {"llm_config.architectures": ["InternLM3ForCausalLM"]},
            "the language model InternLM3ForCausalLM; supported are",
        ),
        ({"llm_config": None}, "config.json has no 'llm_config'"),
        ({"llm_config": 3}, "config.json does not describe an InternVL model"),
        ({"llm_config.hidden_size": None}, "config.json has no 'hidden_size'"),
        ({"llm_config.hidden_size": "many"}, "config.json does not describe an InternVL model .*hidden_size"),
        ({"llm_config.num_attention_heads": 0}, "config.json does not describe an InternVL model"),
        ({"vision_config.num_attention_heads": 5}, "config.json does not describe an InternVL model"),
        ({"vision_config.patch_size": 0}, "config.json does not describe an InternVL model"),
        ({"llm_config.bias": True}, "an InternLM2 with biases is not supported"),
        ({"force_image_size": 56}, "force_image_size 56 differs from the vision model's 28"),
        ({"llm_config.architectures": []}, "config.json does not describe an InternVL model"),
        ({"model_type": []}, r"config.json has model_type \[\]: only InternVL"),
        ({"model_type": "llava"}, "config.json has model_type 'llava': only InternVL"),
    ],
)
def test_refused_configs(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    tiny.write_original(tmp_path, tiny.model())
    tiny.edit_json(tmp_path / "config.json", changes)
    with pytest.raises(DeeplayerError, match=sentence):
        load(str(tmp_path), **CPU)


def test_refused_qk_norm_epsilon(tmp_path: Path) -> None:
    tiny.write_original(tmp_path, tiny.model(vision="6b"))
    tiny.edit_json(tmp_path / "config.json", {"vision_config.layer_norm_eps": 1e-5})
    with pytest.raises(DeeplayerError, match="layer_norm_eps 1e-05 with qk_normalization"):
        load(str(tmp_path), **CPU)
