"""Checks of versions, memory, disk and hub: without network, with little memory, with packages that clash."""

from __future__ import annotations

from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest
import torch

from deeplayer_cli.checkpoints import doctor, fitting, versions
from deeplayer_cli.checkpoints.known_models import known_models
from deeplayer_cli.checkpoints.locate import DEFAULT
from deeplayer_cli.device.placement import Placement

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
CPU32 = Placement(torch.device("cpu"), torch.float32)
Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("gib", "status", "said"),
    [
        (40.0, "ok", "40.0 GiB free on cpu: the weights of 1b, 2b, 4b, 8b fit in float32"),
        (9.0, "warn", "needs 30.1 GiB for its weights in float32, and 9.0 GiB are free on cpu: use a smaller"),
        (0.001, "fail", "no published size fits in float32, and --model demo does not fit either"),
        (None, "warn", "does not report"),
    ],
)
def test_memory(monkeypatch: pytest.MonkeyPatch, gib: float | None, status: str, said: str) -> None:
    for module in (doctor, fitting):
        monkeypatch.setattr(module, "free_bytes", lambda _: None if gib is None else int(gib * GIB))
    check = doctor.check_memory(CPU32)
    assert check.status == status and said in check.message


def test_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "not" / "yet"
    monkeypatch.setattr(doctor, "_is_cached", lambda: False)
    for free, status in ((10**12, "ok"), (10**9, "warn")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        check = doctor.check_cache(cache)
        assert check.status == status and "its download has 16 GB" in check.message
    (tmp_path / "file").touch()
    assert doctor.check_cache(tmp_path / "file" / "hub").status == "fail"
    monkeypatch.setattr(doctor, "_is_cached", lambda: True)
    assert doctor.check_cache(cache).status == "ok"


def test_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test session has no network: the hub's client refuses."""
    monkeypatch.setattr(doctor, "_is_cached", lambda: False)
    check = doctor.check_hub()
    assert (check.status, "--model demo" in check.message) == ("fail", True)
    monkeypatch.setattr(doctor, "_is_cached", lambda: True)
    assert doctor.check_hub().status == "warn"
    monkeypatch.setattr(doctor.HfApi, "model_info", lambda *_, **__: None)
    assert doctor.check_hub().status == "ok"


def versions_are(monkeypatch: pytest.MonkeyPatch, here: dict[str, str], requires: list[str]) -> None:
    def version(package: str) -> str:
        if package not in here:
            raise PackageNotFoundError(package)
        return here[package]

    monkeypatch.setattr(versions, "version", version)
    monkeypatch.setattr(versions, "requires", lambda _: requires)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch>=2.9", "sentencepiece!=0.2.2", "tqdm", "old; python_version < '3'", "x; extra == 'plot'"]
    here = {"torch": "2.13.0+cpu", "sentencepiece": "0.2.3", "tqdm": "4", "transformers": "5.23.0"}
    versions_are(monkeypatch, here, [*wanted, "y; extra == 'dev'"])
    (fine, extras) = doctor.check_versions()
    assert fine.status == "ok" and "torch 2.13.0+cpu" in fine.message
    assert extras.status == "warn" and extras.message.startswith("not installed: plot (x): pip install")
    versions_are(monkeypatch, {"torch": "2.6", "sentencepiece": "0.2.2", "transformers": "5.24.1"}, wanted)
    assert [(check.status, check.message) for check in doctor.check_versions()][:-1] == [
        ("fail", "torch 2.6 is here, and >=2.9 is needed"),
        ("fail", "sentencepiece 0.2.2 is here, and !=0.2.2 is needed"),
        ("fail", "tqdm is not installed"),
        ("fail", f"sentencepiece 0.2.2: {versions.CLASHES[0].reason}; install another version than 0.2.2"),
    ]


def test_known_models() -> None:
    models = {model.name: model for model in known_models()}
    assert models[DEFAULT].layers == 32 and round(models[DEFAULT].weights_gib()["bfloat16"], 1) == 15.0
    demo = models["demo"]
    assert (demo.layers, demo.grounding_layer, demo.layout) == (8, 6, "native")
    assert demo.parameters * 2 < sum(file.stat().st_size for file in doctor.DEMO_FOLDER.glob("*.safetensors"))
