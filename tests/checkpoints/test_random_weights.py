from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from deeplayer_cli.checkpoints import fitting, load, locate, random_weights
from deeplayer_cli.checkpoints.sizes import SIZES, HalfShape
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.tiling import Tiling
from tests.checkpoints import tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the demo, of which only tokenizer and chat template matter here."""
    monkeypatch.setattr(locate, "DEMO_FOLDER", tmp_path)
    return tiny.write_native(tmp_path, tiny.model())


def test_too_large_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "free_bytes", lambda device: 24 * 2**30)
    with pytest.raises(
        DeeplayerError, match=r"random:8b needs 30\.1 GiB for its weights in float32, and 24\.0 GiB are"
    ):
        load("random:8b", dtype="float32", device="cpu")


def test_unknown_size() -> None:
    with pytest.raises(DeeplayerError, match="unknown model 'random:7b': choose random:1b, random:2b, random:4b, "):
        load("random:7b")


def test_a_revision_of_nothing() -> None:
    with pytest.raises(DeeplayerError, match="--revision main is for Hugging Face names, not for random:8b"):
        load("random:8b", revision="main")


def test_runs_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A published size, made small: shape apart, nothing depends on it."""
    small = replace(
        SIZES[1],
        vision=HalfShape(hidden=32, layers=2, heads=2, intermediate=48),
        text=HalfShape(hidden=64, layers=4, heads=4, intermediate=96, kv_heads=2, vocabulary=400),
    )
    monkeypatch.setattr(random_weights, "SIZES", (small,))
    one, two = (load("random:2b", dtype="float32", device="cpu") for _ in range(2))
    first, second = (loaded.model.state_dict() for loaded in (one, two))
    assert all(torch.equal(tensor.to_dense(), second[name].to_dense()) for name, tensor in first.items())
    assert (one.tiling, one.tokens_per_tile) == (Tiling(), 256)
    assert one.image_token_id == one.tokenizer.token_id("<IMG_CONTEXT>")
    image = torch.randn(1, 3, 448, 448)
    ids = torch.tensor([[3, *[one.image_token_id] * 256, 7, 9]])
    with torch.inference_mode():
        logits = one.model(input_ids=ids, pixel_values=image).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 1e-3
