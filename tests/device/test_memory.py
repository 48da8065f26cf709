from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deeplayer_cli.device import memory


def fake_files(monkeypatch: pytest.MonkeyPatch, contents: dict[str, str]) -> None:
    def read_text(path: Path, encoding: str = "utf-8") -> str:
        if str(path) not in contents:
            raise FileNotFoundError(path)
        return contents[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)


MEMINFO = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    1000 kB\n"}
V2 = {
    "/sys/fs/cgroup/memory.max": "900000\n",
    "/sys/fs/cgroup/memory.current": "500000\n",
    "/sys/fs/cgroup/memory.stat": "anon 5\nactive_file 100000\ninactive_file 200000\n",
}
V1 = {
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "800000\n",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes": "500000\n",
    "/sys/fs/cgroup/memory/memory.stat": "active_file 0\ninactive_file 0\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MEMINFO, 1_024_000),
        (MEMINFO | V2, 700_000),
        (MEMINFO | V1, 300_000),
        (MEMINFO | V2 | {"/sys/fs/cgroup/memory.max": "max\n"}, 1_024_000),
    ],
)
def test_free_memory_of_a_cpu(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int) -> None:
    fake_files(monkeypatch, files)
    assert memory.free_bytes(torch.device("cpu")) == expected


def test_systems_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_files(monkeypatch, {})
    assert (memory.free_bytes(torch.device("cpu")) or 0) > 0
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.free_bytes(torch.device("cpu")) is None
