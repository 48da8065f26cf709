from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from deeplayer_cli.checkpoints import Checkpoint

os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the network; huggingface_hub reads this when it is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel, with one thread each

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job: the tests' processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("deeplayer", deadline=None)  # no test depends on the speed of the machine
settings.load_profile("deeplayer")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder with outputs of the original InternVL code on a tiny checkpoint.

    ``DEEPLAYER_REFERENCE_DIR`` replaces it by another folder of the same format.
    """
    return Path(os.environ.get("DEEPLAYER_REFERENCE_DIR", Path(__file__).parent / "data" / "golden"))


@pytest.fixture(scope="session")
def golden_checkpoint(reference_dir: Path) -> Checkpoint:
    from deeplayer_cli.checkpoints import load

    return load(str(reference_dir / "checkpoint"), dtype="float32", device="cpu")
