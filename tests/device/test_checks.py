"""Checks of a machine that lacks something."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device import attention_kernels, checks
from deeplayer_cli.device.attention_kernels import runnable_kernels
from deeplayer_cli.device.placement import DTYPES, Placement

if TYPE_CHECKING:
    import pytest

CPU = torch.device("cpu")
CPU32 = Placement(CPU, torch.float32)


def test_all_is_well_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_NVIDIA_DRIVER", Path("/nothing"))
    assert checks.check_device(CPU).status == checks.check_dtypes(CPU32).status == "ok"
    said = checks.check_attention(CPU32)
    assert said.status == "ok" and "math" in said.message and "float32" in said.message


def test_the_math_kernel_always_runs_and_a_cpu_has_no_cudnn() -> None:
    found = runnable_kernels(CPU, torch.float32)
    assert found["math"] == ["causal", "masked"] and found["cudnn"] == []


def test_only_the_math_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"math": attention_kernels._PREFERRED["math"], "cudnn": attention_kernels._PREFERRED["cudnn"]}
    monkeypatch.setattr(attention_kernels, "_PREFERRED", one)
    said = checks.check_attention(CPU32)
    assert said.status == "warn" and "only the math kernel runs" in said.message
    monkeypatch.setattr(attention_kernels, "_PREFERRED", {"cudnn": one["cudnn"]})
    assert checks.check_attention(CPU32).status == "fail"


def test_a_dtype_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "DTYPES", {**DTYPES, "odd": torch.complex32})
    said = checks.check_dtypes(CPU32)
    assert said.status == "ok" and "; not here: odd; --dtype auto is float32" in said.message
    monkeypatch.setattr(checks, "DTYPES", {"complex32": torch.complex32})
    assert checks.check_dtypes(Placement(CPU, torch.complex32)).status == "fail"


def test_bfloat16_is_named_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks._seconds_of_linear(torch.float32) > 0
    for seconds, told in ((1.0, True), (3.0, False)):
        taken = {torch.float32: 2.0, torch.bfloat16: seconds}
        monkeypatch.setattr(checks, "_seconds_of_linear", taken.__getitem__)
        said = checks.check_dtypes(CPU32).message
        assert ("--dtype bfloat16 multiplies 2.0 times as fast in half the memory" in said) is told


def test_a_driver_that_torch_does_not_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "_NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    said = checks.check_device(CPU)
    assert said.status == "warn" and "is the CPU build" in said.message
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "does not see the GPU" in checks.check_device(CPU).message


def compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(checks.shutil, "which", lambda _: None)
    said = checks.check_compiler(CPU)
    assert said.status == "warn" and said.message.startswith("no C++ compiler: torch.compile does not work")
    works = compiler(tmp_path / "works", "grep -q Python.h && exit 0; exit 1")
    lacks = compiler(tmp_path / "lacks", "echo 'x.cpp:2: fatal error: Python.h: No such file' >&2; exit 1")
    monkeypatch.setattr(checks.shutil, "which", lambda name: works if name == "g++" else None)
    assert checks.check_compiler(CPU).status == "ok"
    monkeypatch.setenv("CXX", lacks)
    said = checks.check_compiler(CPU)
    assert said.status == "warn" and "fatal error: Python.h" in said.message
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    assert "does not run" in checks.check_compiler(CPU).message
    monkeypatch.setenv("CXX", works)
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    assert "Triton is not installed" in checks.check_compiler(torch.device("cuda")).message

    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("c++", 30)

    monkeypatch.setattr(checks.subprocess, "run", hangs)
    assert checks.check_compiler(CPU).status == "warn"
