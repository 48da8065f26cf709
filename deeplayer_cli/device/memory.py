"""The free memory of a device, and its peak use."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

_CGROUPS = (  # folder, limit and use, of version 2 and version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    known = [free for free in (_system_bytes(), _cgroup_bytes()) if free is not None]
    return min(known, default=None)


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory in bytes: what torch used on a CUDA device, otherwise what the whole process used."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    per_unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * per_unit


def _system_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no such call, or no such name, on this system
        return None


def _cgroup_bytes() -> int | None:
    """Return the bytes that the container's limit leaves; file cache counts as free, because the kernel frees it."""
    for folder, limit, use in _CGROUPS:
        try:
            used = int(Path(folder, use).read_text(encoding="ascii"))
            statistics = dict(
                line.split() for line in Path(folder, "memory.stat").read_text(encoding="ascii").splitlines()
            )
            cached = int(statistics["active_file"]) + int(statistics["inactive_file"])
            return int(Path(folder, limit).read_text(encoding="ascii")) - used + cached
        except (OSError, ValueError, KeyError):  # no such file, or "max": no limit
            continue
    return None
