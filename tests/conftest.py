from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from deeplayer_cli.checkpoints import Checkpoint

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is first imported: no test may use the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side: one thread each

settings.register_profile("deeplayer", deadline=None)  # no test depends on how fast or busy the machine is
settings.load_profile("deeplayer")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Outputs of the original InternVL code on a tiny checkpoint; another folder of the same format may stand in."""
    return Path(os.environ.get("DEEPLAYER_REFERENCE_DIR", Path(__file__).parent / "data" / "golden"))


@pytest.fixture(scope="session")
def golden_checkpoint(reference_dir: Path) -> Checkpoint:
    from deeplayer_cli.checkpoints import load

    return load(str(reference_dir / "checkpoint"), dtype="float32", device="cpu")
