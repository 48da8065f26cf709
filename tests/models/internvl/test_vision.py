"""What is read from the vision tower, against its own eager implementation; and the tower by blocks of queries."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch

from deeplayer_cli.device import blocked_attention
from deeplayer_cli.models.internvl import vision
from deeplayer_cli.models.internvl.vision import encode, encode_with_attention, normalize, use_blocked_attention
from tests.checkpoints.tiny import model

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


@pytest.mark.parametrize("tower_kind", ["300m", "6b"])
def test_a_visual_token_gets_what_its_patches_get(tower_kind: str) -> None:
    native = model(vision=tower_kind).double()
    assert native.config.vision_config.num_hidden_layers == 2
    tiles = torch.randint(0, 256, (3, 2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    found = encode_with_attention(native, tiles)
    assert torch.equal(found.features, encode(native, tiles))
    assert found.class_attention.shape == (3, 8, 4) and found.class_attention.dtype == torch.float32

    attentions, keys = [], []
    tower = native.model.vision_tower
    norm = tower.encoder.layer[0].attention.k_norm
    norm.register_forward_hook(lambda module, args, output: keys.append(output))
    tower.encoder.layer[0].attention.register_forward_hook(lambda module, args, output: attentions.append(output[1]))
    native.set_attn_implementation("eager")
    tower(normalize(tiles.flatten(0, 1)).double())
    (attention,) = attentions
    for tile in range(6):
        for token in range(4):
            top, left = 2 * (token // 2), 2 * (token % 2)
            patches = [4 * row + column for row in (top, top + 1) for column in (left, left + 1)]
            wanted = sum(attention[tile, :, 0, 1 + patch] for patch in patches)
            assert torch.allclose(found.class_attention[tile // 2, 4 * (tile % 2) + token].double(), wanted, atol=1e-6)
            key = sum(keys[0][tile, 1 + patch].unflatten(-1, (4, -1)).mean(0) for patch in patches) / 4
            assert torch.allclose(found.vision_keys[tile // 2, 4 * (tile % 2) + token], key, atol=1e-9)


def test_nothing_is_left_behind_in_the_tower() -> None:
    native = model()
    encode_with_attention(native, torch.zeros(1, 1, 3, 28, 28, dtype=torch.uint8))
    attentions = [layer.attention for layer in native.model.vision_tower.encoder.layer]
    assert not any(norm._forward_hooks for one in attentions for norm in (one.q_norm, one.k_norm))


def test_what_another_thread_encodes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    native = model()
    tiles = torch.randint(0, 256, (2, 1, 1, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    expected = encode_with_attention(native, tiles[0])

    encode_one = vision._encode

    def encode_twice(native: InternVLForConditionalGeneration, own: torch.Tensor) -> torch.Tensor:
        features = encode_one(native, own)
        other = threading.Thread(target=encode_one, args=(native, tiles[1, 0]))
        other.start()
        other.join()
        return features

    monkeypatch.setattr(vision, "_encode", encode_twice)
    found = encode_with_attention(native, tiles[0])
    assert torch.equal(found.class_attention, expected.class_attention)
    assert torch.equal(found.vision_keys, expected.vision_keys)


@pytest.mark.parametrize("together", [1, 2, 5])
def test_tiles_go_through_the_tower_in_parts(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    native = model()
    tiles = torch.randint(0, 256, (3, 3, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    expected = encode_with_attention(native, tiles)
    seen: list[int] = []
    native.model.vision_tower.register_forward_pre_hook(
        lambda _, args, options: seen.append(len(options["pixel_values"])), with_kwargs=True
    )
    monkeypatch.setattr(vision, "_PATCHES", 16 * together)
    found = encode_with_attention(native, tiles)
    assert len(set(seen[:-1])) == 1 and seen[0] == together and sum(seen) == 9
    assert torch.equal(encode(native, tiles), found.features)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_tower_that_attends_by_blocks_sees_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    native = model()
    tiles = torch.randint(0, 256, (3, 2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    asked: list[int] = []
    attention = blocked_attention.attention

    def note(*projected: torch.Tensor) -> torch.Tensor:
        asked.append(len(projected))
        return attention(*projected)

    monkeypatch.setattr(blocked_attention, "attention", note)
    with torch.inference_mode():
        expected = encode(native, tiles)
        use_blocked_attention(native)
        assert torch.equal(encode(native, tiles), expected) and not asked  # the tiles are too small
        monkeypatch.setattr(blocked_attention, "_LEAST_PRODUCTS", 1)
        monkeypatch.setattr(blocked_attention, "_ROWS", 5)
        found = encode(native, tiles)
    assert asked == [3, 3]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
