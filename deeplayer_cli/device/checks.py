"""Checks of this machine: device, dtypes, attention kernels and compiler. Each one tries what a run would do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from deeplayer_cli.device.attention_kernels import runnable_kernels
from deeplayer_cli.device.packed_linear import pack_linears
from deeplayer_cli.device.placement import DTYPES, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

Status = Literal["ok", "warn", "fail"]

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_COMPILERS = ("c++", "g++", "clang++")
_PROGRAM = b"#include <cmath>\n#include <Python.h>\nint main() { return 0; }\n"
_SECONDS = 30  # for the compiler
_WORTHWHILE = 1.2  # times as fast as float32; less does not pay for the rounding


@dataclass(frozen=True)
class MachineCheck:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: ``ok``; ``warn``: something is slow or missing; ``fail``: a run would fail.
        message: one sentence for a person.
    """

    name: str
    status: Status
    message: str


def device_checks() -> Iterator[MachineCheck]:
    """Check the device that ``--device auto`` chooses, one check after the other."""
    placement = Placement.choose("auto", "auto")
    device = placement.device
    yield check_device(device)
    yield check_dtypes(placement)
    yield check_attention(placement)
    yield check_compiler(device)


def check_device(device: torch.device) -> MachineCheck:
    """Say what device torch has, and whether it misses one that the machine has."""
    if device.type == "cuda":
        count = torch.cuda.device_count()
        names = ", ".join(dict.fromkeys(torch.cuda.get_device_name(index) for index in range(count)))
        return MachineCheck("device", "ok", f"cuda: {count} x {names}")
    if device.type == "mps":
        return MachineCheck("device", "ok", "mps: the GPU of this Mac")
    threads = f"cpu, {torch.get_num_threads()} threads"
    if _NVIDIA_DRIVER.exists():
        why = "does not see the GPU" if torch.version.cuda else "is the CPU build"
        return MachineCheck(
            "device", "warn", f"{threads}: an NVIDIA driver is here, but torch {torch.__version__} {why}"
        )
    return MachineCheck("device", "ok", f"{threads}, no GPU: large models are slow here, and --model demo is not")


def nvidia_driver() -> str | None:
    """The version of the NVIDIA driver; None without one."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", _NVIDIA_DRIVER.read_text(encoding="ascii"))
    except OSError:
        return None
    return found and found[0]


def check_dtypes(placement: Placement) -> MachineCheck:
    """Multiply two small matrices in every dtype. On a CPU, say whether bfloat16 is worth choosing."""
    works: list[str] = []
    fails: list[str] = []
    for name, dtype in DTYPES.items():
        try:
            ones = torch.ones(8, 8, device=placement.device, dtype=dtype)
            (works if bool((ones @ ones == 8).all()) else fails).append(name)
        except (RuntimeError, TypeError):  # TypeError: a dtype that MPS lacks
            fails.append(name)
    auto = str(placement.dtype).removeprefix("torch.")
    status: Status = "fail" if auto in fails else "ok"
    missing = f"; not here: {', '.join(fails)}" if fails else ""
    found = f"{', '.join(works) or 'none'} work{missing}; --dtype auto is {auto}"
    if auto == "float32" and "bfloat16" in works:
        ratio = _seconds_of_linear(torch.float32) / _seconds_of_linear(torch.bfloat16)
        if ratio > _WORTHWHILE:
            found += f", and --dtype bfloat16 multiplies {ratio:.1f} times as fast in half the memory"
    return MachineCheck("dtypes", status, found)


@torch.inference_mode()
def _seconds_of_linear(dtype: torch.dtype) -> float:
    """How long a CPU takes for a linear layer over the tokens of an image, at best."""
    model = nn.Sequential(nn.Linear(1024, 1024, dtype=dtype))
    pack_linears(model, dtype)
    inputs, seconds = torch.ones(512, 1024, dtype=dtype), []
    for _ in range(5):
        begin = time.perf_counter()
        model(inputs)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def check_attention(placement: Placement) -> MachineCheck:
    """Run every attention kernel on small tensors, with and without a mask."""
    found = runnable_kernels(placement.device, placement.dtype)
    if not any(found.values()):
        return MachineCheck("attention", "fail", f"no attention kernel runs in {placement.dtype} on {placement.device}")
    shown = [name if len(uses) > 1 else f"{name} ({uses[0]} only)" for name, uses in found.items() if uses]
    if not any(uses for name, uses in found.items() if name != "math"):
        return MachineCheck(
            "attention", "warn", "only the math kernel runs: long prompts are slow and need much memory"
        )
    return MachineCheck("attention", "ok", f"{', '.join(shown)} run in {str(placement.dtype).removeprefix('torch.')}")


def check_compiler(device: torch.device) -> MachineCheck:
    """Look for what torch.compile needs: a C++ compiler with Python's headers, and Triton on a GPU."""
    effect = "torch.compile does not work, so selection and decoding run uncompiled: slower on a GPU, same answers"
    named = os.environ.get("CXX")
    found = named or next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        return MachineCheck("compiler", "warn", f"no C++ compiler: {effect}; install g++ or clang")
    command = [*shlex.split(found), f"-I{sysconfig.get_path('include')}", "-x", "c++", "-fsyntax-only", "-"]
    try:
        tried = subprocess.run(command, input=_PROGRAM, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return MachineCheck("compiler", "warn", f"{found} does not run ({error}): {effect}")
    if tried.returncode:
        lines = tried.stderr.decode(errors="replace").splitlines()
        reason = next((line for line in lines if "error" in line), f"exit code {tried.returncode}")
        return MachineCheck("compiler", "warn", f"{found} cannot compile for Python ({reason}): {effect}")
    if device.type == "cuda" and find_spec("triton") is None:
        return MachineCheck("compiler", "warn", f"Triton is not installed: {effect}")
    return MachineCheck("compiler", "ok", f"{found}: torch.compile can run")
