from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import FORMATS, open_image, read_size
from deeplayer_cli.models.internvl.tiling import Tiling, count_tiles, tile_grid, tile_image

if TYPE_CHECKING:
    from collections.abc import Callable

MEAN = np.asarray([0.485, 0.456, 0.406], dtype=np.float32)[:, None, None]
STD = np.asarray([0.229, 0.224, 0.225], dtype=np.float32)[:, None, None]


def normalise(tiles: np.ndarray) -> np.ndarray:
    return (tiles.astype(np.float32) / np.float32(255) - MEAN) / STD


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def refused(path: Path, **limits: int) -> str:
    with pytest.raises(RowError) as caught:
        open_image(path, **limits)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.kind


def test_grids_of_the_original(reference_dir: Path) -> None:
    grid = json.loads((reference_dir / "preprocess_grid.json").read_bytes())
    assert len(grid["rows"]) == 1110
    for width, height, max_tiles, columns, rows, tiles in grid["rows"]:
        tiling = Tiling(tile_size=grid["image_size"], min_tiles=grid["min_num"], max_tiles=max_tiles)
        assert tile_grid((width, height), tiling) == (columns, rows), (width, height, max_tiles)
        assert count_tiles((width, height), tiling) == tiles, (width, height, max_tiles)


def test_pixels_of_the_original_on_small_tiles(reference_dir: Path) -> None:
    golden = json.loads((reference_dir / "golden.json").read_bytes())
    arrays = np.load(reference_dir / "golden.npz")
    for sample in golden["samples"]:
        image = open_image(reference_dir / sample["image"])
        tiles = tile_image(image, Tiling(tile_size=golden["image_size"], max_tiles=golden["max_num"]))
        np.testing.assert_array_equal(normalise(tiles), arrays[f"{sample['key']}.pixel_values"])


def test_pixels_of_the_original_on_full_tiles(reference_dir: Path) -> None:
    arrays = np.load(reference_dir / "preprocess_448.npz")
    for case in json.loads((reference_dir / "preprocess_448.json").read_bytes()):
        tiles = tile_image(open_image(reference_dir / "images" / case["image"]), Tiling())
        pixels = normalise(tiles)
        assert list(pixels.shape) == case["shape"]
        np.testing.assert_array_equal(pixels[tuple(arrays[f"{case['key']}.index"])], arrays[f"{case['key']}.value"])
        assert hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() == case["sha256_float32_C_order"]


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (7, 5)])
def test_any_shape_can_be_tiled(size: tuple[int, int]) -> None:
    tiling = Tiling(tile_size=28)
    tiles = tile_image(noise(*size), tiling)
    assert tiles.shape == (count_tiles(size, tiling), 3, 28, 28)
    assert tiles.dtype == np.uint8 and tiles.flags.c_contiguous


def test_tiles_go_row_by_row_and_the_thumbnail_comes_last() -> None:
    image = noise(56, 28)
    tiles = tile_image(image, Tiling(tile_size=28, max_tiles=2))
    pixels = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(tiles[0], pixels[:, :, :28])
    np.testing.assert_array_equal(tiles[1], pixels[:, :, 28:])
    assert len(tiles) == 3
    assert len(tile_image(image, Tiling(tile_size=28, max_tiles=2, thumbnail=False))) == 2
    assert len(tile_image(image, Tiling(tile_size=28, max_tiles=1))) == 1


@pytest.mark.parametrize("settings", [{"tile_size": 0}, {"min_tiles": 0}, {"min_tiles": 3, "max_tiles": 2}])
def test_impossible_tilings(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tiling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a photo\nüñí"
    noise(20, 10).save(path, format=name)
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_not_half_decoded(name: str, share: float, tmp_path: Path) -> None:
    buffer = BytesIO()
    noise(64, 64).save(buffer, format=name)
    path = tmp_path / "part"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    assert refused(path) == "image_broken"


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert refused(tmp_path / "empty.jpg") == "image_broken"
    (tmp_path / "text.jpg").write_text("hello")
    assert refused(tmp_path / "text.jpg") == "image_broken"
    Image.new("RGB", (4, 4)).save(tmp_path / "other.ppm")
    assert refused(tmp_path / "other.ppm") == "image_broken"


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.jpg") == "image_missing"
    assert refused(tmp_path) == "image_unreadable"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refused(tmp_path / "loop") == "image_unreadable"
    assert refused(tmp_path / ("x" * 300)) == "image_unreadable"
    with pytest.raises(RowError, match="null"):
        open_image(Path("a\0b"))


def test_pipes_and_sockets_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "image_unreadable"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert refused(tmp_path / "socket") == "image_unreadable"


@pytest.mark.parametrize("read", [open_image, read_size])
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null", "pipe", "folder"])
def test_links_to_what_is_no_file(read: Callable[[Path], object], target: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to(target if target.startswith("/") else tmp_path / target)
    (tmp_path / "link to a link.png").symlink_to(tmp_path / "link.png")
    with pytest.raises(RowError, match="not an image"):
        read(tmp_path / "link to a link.png")


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    noise(4, 4).save(tmp_path / "fine.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "fine.png")
    assert open_image(tmp_path / "link.png").size == read_size(tmp_path / "link.png") == (4, 4)
    assert refused(tmp_path / "link.png", max_bytes=10) == "image_too_large"


@pytest.mark.parametrize("swap", ["pipe", "zero", "folder", "longer", "empty"])
def test_the_file_that_is_checked_is_the_file_that_is_read(
    swap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts another file in the place of the checked one just before it is opened."""
    path = tmp_path / "image.png"
    noise(4, 4).save(path)
    real = os.open

    def swapped(name: str, flags: int, *more: int) -> int:
        if str(name) == str(path):
            path.unlink()
            if swap == "pipe":
                os.mkfifo(path)
            elif swap == "zero":
                path.symlink_to("/dev/zero")
            elif swap == "folder":
                path.mkdir()
            else:
                path.write_bytes(bytes(10_000 if swap == "longer" else 0))
        return real(name, flags, *more)

    monkeypatch.setattr(os, "open", swapped)
    kinds = {"longer": "image_too_large", "empty": "image_broken"}
    assert refused(path, max_bytes=5000) == kinds.get(swap, "image_unreadable")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    noise(4, 4).save(tmp_path / "fine.tif", compression="tiff_lzw")
    (tmp_path / "broken.tif").write_bytes((tmp_path / "fine.tif").read_bytes()[:100])
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        open_image(tmp_path / "fine.tif")
        read_size(tmp_path / "fine.tif")
        refused(tmp_path / "broken.tif")
        refused(tmp_path / "fine.tif", max_pixels=3)
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    noise(4, 4).save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    assert refused(tmp_path / "secret.png") == "image_unreadable"


def test_system_errors_are_not_blamed_on_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(4, 4).save(tmp_path / "fine.png")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    assert refused(tmp_path / "fine.png") == "image_unreadable"


def test_limits(tmp_path: Path) -> None:
    noise(20, 10).save(tmp_path / "image.png")
    assert refused(tmp_path / "image.png", max_pixels=199) == "image_too_large"
    assert refused(tmp_path / "image.png", max_bytes=100) == "image_too_large"
    assert open_image(tmp_path / "image.png", max_pixels=200).size == (20, 10)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [13_400, 60_000])  # above our limit only, and above Pillow's as well
def test_decompression_bombs_are_not_unpacked(side: int, tmp_path: Path) -> None:
    def chunk(data: bytes) -> bytes:
        return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))

    header = chunk(b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT"))
    assert refused(tmp_path / "bomb.png") == "image_too_large"
