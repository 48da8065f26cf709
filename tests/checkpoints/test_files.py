"""What is wrong with a checkpoint's files is said in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from deeplayer_cli.checkpoints import files, load
from deeplayer_cli.errors import DeeplayerError
from tests.checkpoints import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_original(tmp_path, tiny.model())


def assert_refused(folder: Path, sentence: str) -> None:
    with pytest.raises(DeeplayerError, match=sentence) as refusal:
        load(str(folder), dtype="float32", device="cpu")
    assert "\n" not in str(refusal.value)


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors["mlp1.0.weight"], tensors["language_model.model.norm.weight"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["language_model.model.layers.2.mlp.up_proj.weight"] = torch.zeros(1)
    tensors["language_model.model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(1)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["mlp1.1.weight"] = tensors["mlp1.1.weight"][:-1].contiguous()
    tensors["vision_model.encoder.layers.0.attn.qkv.bias"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop, r"2 missing: model\.multi_modal_projector\.layer_norm\.weight, model\.language_model\.norm\.weight"),
        (add, r"2 unexpected: .*layers\.0.*lora_A\.weight, .*layers\.2\.mlp\.up_proj\.weight"),
        (reshape, r"2 of another shape: mlp1\.1\.weight \[31, 128\], .*qkv\.bias \[7\]"),
        (
            lambda tensors: tensors.update({"mlp1.0.bias": torch.zeros(128, dtype=torch.int8)}),
            "stores 'mlp1.0.bias' as I8",
        ),
    ],
)
def test_wrong_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None], sentence: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    assert_refused(folder, sentence)


def test_two_tensors_for_one_parameter(tmp_path: Path) -> None:
    tiny.write_native(tmp_path, tiny.model())
    tensors = load_file(tmp_path / "model.safetensors")
    old, new = "language_model.model.norm.weight", "model.language_model.norm.weight"
    norm = tensors.pop(new) if new in tensors else tensors.pop(old)
    save_file(tensors | {old: norm, new: norm + 1}, tmp_path / "model.safetensors")
    assert_refused(tmp_path, "1 unexpected: ")


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(folder, r"model\.safetensors is damaged \(.*\): download it again")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert_refused(folder, r"has no model\.safetensors: download the checkpoint again")


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(folder, "only as a pickle, and a pickle can run code")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors"])
def test_an_index_cannot_point_outside(folder: Path, name: str) -> None:
    tiny.write_json(folder / INDEX, {"weight_map": {"mlp1.0.weight": name}})
    assert_refused(folder, "points outside its folder, to")


@pytest.mark.parametrize("weight_map", [["a"], {"a": 3}, "a"])
def test_an_index_of_something_else(folder: Path, weight_map: object) -> None:
    tiny.write_json(folder / INDEX, {"weight_map": weight_map})
    assert_refused(folder, r"index\.json has no map of tensor names to file names")


def test_an_index_that_promises_too_much(folder: Path) -> None:
    tiny.write_json(folder / INDEX, {"weight_map": {"not.there": "model.safetensors"}})
    assert_refused(folder, r"lists 'not\.there', but no file holds it")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "holds a JSON list, but must hold an object"),
        (b"\xff", "cannot read .*config.json"),
        (None, "cannot read .*config.json"),
    ],
)
def test_damaged_config(folder: Path, content: bytes | None, sentence: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    assert_refused(folder, sentence)


def test_a_config_as_large_as_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_JSON_LIMIT", 10)
    assert_refused(folder, r"config\.json is larger than 0 MiB")


def test_code_in_a_checkpoint_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    for name in ("modeling_internvl_chat.py", "configuration_internvl_chat.py", "tokenization_internlm2.py"):
        (folder / name).write_text(code)
    config = orjson.loads((folder / "config.json").read_bytes())
    config["auto_map"] = {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}
    (folder / "config.json").write_bytes(orjson.dumps(config))
    load(str(folder), dtype="float32", device="cpu")
    assert not marker.exists()


@pytest.mark.parametrize(
    "header",
    [
        (10 * 2**30).to_bytes(8, "little") + b"{}",  # a header of 10 GiB
        (2**63).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0[]",
    ],
)
def test_a_header_that_lies(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(header)
    assert_refused(folder, r"model\.safetensors is damaged")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("hidden_size", 2**40, "does not describe an InternVL model"),
        ("hidden_size", -4, "does not describe an InternVL model"),
        ("num_hidden_layers", 10**7, "gives the model 10,000,000 layers"),
        ("vocab_size", 10**13, "GiB are free"),
    ],
)
def test_absurd_shapes(folder: Path, name: str, value: int, sentence: str) -> None:
    config = orjson.loads((folder / "config.json").read_bytes())
    config["llm_config"][name] = value
    (folder / "config.json").write_bytes(orjson.dumps(config))
    assert_refused(folder, sentence)
