from __future__ import annotations

import pytest
import torch

from deeplayer_cli.checkpoints import Checkpoint, load
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.errors import DeeplayerError


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "dtype"),
    [(2, True, "cuda", "bfloat16"), (0, True, "mps", "bfloat16"), (0, False, "cpu", "float32")],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, device: str, dtype: str) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert Placement.choose("auto", "auto") == Placement(torch.device(device), getattr(torch, dtype))


@pytest.mark.parametrize(
    ("short", "dtype"),
    [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32), ("fp64", torch.float64)],
)
def test_both_names_of_a_dtype(short: str, dtype: torch.dtype) -> None:
    assert Placement.choose("cpu", short) == Placement.choose("cpu", str(dtype).removeprefix("torch."))
    assert Placement.choose("cpu", short).dtype == dtype


@pytest.mark.parametrize(
    ("device", "dtype", "sentence"),
    [
        ("cpu", "int8", "unknown dtype 'int8': choose auto, bfloat16, float16, float32, float64, bf16"),
        ("tpu", "auto", "unknown device 'tpu': choose auto, cuda, cuda:N, mps or cpu"),
        ("cuda:x", "auto", "unknown device 'cuda:x'"),
        ("cuda:", "auto", "unknown device 'cuda:'"),
        ("cuda", "auto", "device 'cuda' is not on this machine .*: use --device auto"),
        ("mps", "auto", "device 'mps' is not on this machine"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, sentence: str) -> None:
    machine(monkeypatch)
    with pytest.raises(DeeplayerError, match=sentence):
        Placement.choose(device, dtype)


def test_a_gpu_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2)
    assert Placement.choose("cuda:1", "auto").device == torch.device("cuda:1")
    with pytest.raises(DeeplayerError, match="device 'cuda:2' is not on this machine"):
        Placement.choose("cuda:2", "auto")


def test_mps_has_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, mps=True)
    with pytest.raises(DeeplayerError, match="device mps has no float64"):
        Placement.choose("mps", "float64")


def test_unknown_attention() -> None:
    with pytest.raises(DeeplayerError, match="unknown attention 'flash': choose sdpa or eager"):
        load("demo", attention="flash")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(reference_dir: object, golden_checkpoint: Checkpoint) -> None:
    checkpoint = load(golden_checkpoint.name, device="cuda")
    tensors = [*checkpoint.model.parameters(), *checkpoint.model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cuda"}
    assert checkpoint.model.dtype == torch.bfloat16
