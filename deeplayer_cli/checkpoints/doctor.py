"""Can this machine run models? Every check is tried here and now, and says what would fail or be slow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, try_to_load_from_cache

from deeplayer_cli.checkpoints.fitting import require_memory
from deeplayer_cli.checkpoints.locate import DEFAULT, DEMO, DEMO_FOLDER
from deeplayer_cli.checkpoints.sizes import SIZES
from deeplayer_cli.checkpoints.versions import installed, missing_extras, version_problems
from deeplayer_cli.device.checks import MachineCheck, device_checks
from deeplayer_cli.device.memory import free_bytes
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.errors import DeeplayerError, root_cause

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB_SECONDS = 5.0
_GIB = 2**30
_SHOWN_VERSIONS = ("torch", "transformers", "huggingface_hub", "pillow")
_DEFAULT_SIZE = next(size for size in SIZES if size.hub_name == DEFAULT)
_BYTES_STORED = 2  # a parameter in the published files, which are bfloat16


def examine(*, offline: bool) -> Iterator[MachineCheck]:
    """Check versions, device, memory, disk and hub, one after the other.

    Args:
        offline: leave the network alone.
    """
    yield from check_versions()
    yield from device_checks()
    yield check_memory(Placement.choose("auto", "auto"))
    yield check_cache(Path(constants.HF_HUB_CACHE))
    if not offline:
        yield check_hub()


def check_versions() -> Iterator[MachineCheck]:
    """Check the versions of packages: what is too old, what clashes, which extras are missing."""
    problems = list(version_problems())
    for sentence in problems:
        yield MachineCheck("versions", "fail", sentence)
    if not problems:
        shown = ", ".join(f"{name} {installed(name)}" for name in _SHOWN_VERSIONS)
        yield MachineCheck("versions", "ok", f"{shown}: no clash is known")
    if missing := missing_extras():
        names = "; ".join(f"{extra} ({', '.join(packages)})" for extra, packages in missing.items())
        yield MachineCheck("extras", "warn", f"not installed: {names}: pip install 'deeplayer[{','.join(missing)}]'")


def check_memory(placement: Placement) -> MachineCheck:
    """Compare the free memory with the weights of the published sizes."""
    free = free_bytes(placement.device)
    if free is None:
        return MachineCheck("memory", "warn", f"the system does not report the free memory of {placement.device}")
    dtype = str(placement.dtype).removeprefix("torch.")
    fitting = [size.name for size in SIZES if size.parameters * placement.dtype.itemsize <= free]
    fits = f"the weights of {', '.join(fitting)} fit in {dtype}" if fitting else f"no published size fits in {dtype}"
    found = f"{free / _GIB:.1f} GiB free on {placement.device}: {fits}"
    if free < sum(file.stat().st_size for file in DEMO_FOLDER.glob("*.safetensors")) * 2:  # stored in 16 bits
        return MachineCheck("memory", "fail", f"{found}, and --model {DEMO} does not fit either")
    try:
        require_memory(DEFAULT, _DEFAULT_SIZE.parameters, placement)
    except DeeplayerError as error:
        return MachineCheck("memory", "warn", str(error))
    return MachineCheck("memory", "ok", found)


def check_cache(cache: Path) -> MachineCheck:
    """Check that the default model is in the hub's cache, or that there is room for it."""
    if _is_cached():
        return MachineCheck("cache", "ok", f"{DEFAULT} is in {cache}")
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return MachineCheck(
            "cache", "fail", f"models cannot be downloaded: {there} is not writable; set HF_HOME to another"
        )
    free, needed = shutil.disk_usage(there).free, _DEFAULT_SIZE.parameters * _BYTES_STORED
    found = f"{DEFAULT} is not in {cache} yet: its download has {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
    return MachineCheck("cache", "ok" if free > needed else "warn", found)


def check_hub() -> MachineCheck:
    """Ask the hub for the default model."""
    try:
        HfApi().model_info(DEFAULT, timeout=HUB_SECONDS)
    except Exception as error:  # any error of the network or of the hub's client
        reason = f"{constants.ENDPOINT} does not answer ({root_cause(error)})"
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set"
        if _is_cached():
            return MachineCheck("hub", "warn", f"{reason}: only models that are in the cache can be used")
        return MachineCheck(
            "hub", "fail", f"{reason}: {DEFAULT} cannot be downloaded; give a folder, or --model {DEMO}"
        )
    return MachineCheck("hub", "ok", f"{constants.ENDPOINT} answers")


def _is_cached() -> bool:
    return isinstance(try_to_load_from_cache(DEFAULT, "config.json"), str)
