from __future__ import annotations

import re

import pytest
import torch

from deeplayer_cli.checkpoints import fitting
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.errors import DeeplayerError

GIB = 2**30
CPU32 = Placement(torch.device("cpu"), torch.float32)
PARAMETERS = 8_075_365_376


def free(monkeypatch: pytest.MonkeyPatch, gib: float | None) -> None:
    monkeypatch.setattr(fitting, "free_bytes", lambda device: None if gib is None else int(gib * GIB))


def test_enough_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for gib in (31.0, None):
        free(monkeypatch, gib)
        fitting.require_memory("random:8b", PARAMETERS, CPU32)


@pytest.mark.parametrize(
    ("gib", "way_out"),
    [
        (24.0, "--dtype bfloat16 (15.0 GiB) or --dtype float16 (15.0 GiB) or a smaller InternVL2.5 (1b, 2b, 4b)"),
        (9.0, "use a smaller InternVL2.5 (1b, 2b)"),
        (1.0, "use --model demo"),
    ],
)
def test_too_little(monkeypatch: pytest.MonkeyPatch, gib: float, way_out: str) -> None:
    free(monkeypatch, gib)
    numbers = f"random:8b needs 30.1 GiB for its weights in float32, and {gib:.1f} GiB are free on cpu: "
    with pytest.raises(DeeplayerError, match=re.escape(numbers) + ".*" + re.escape(way_out)):
        fitting.require_memory("random:8b", PARAMETERS, CPU32)
