"""In every format: the stored frame, or with ``exif_transpose`` the turned one; animations are stills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deeplayer_cli.images.decode import open_image, read_size

if TYPE_CHECKING:
    from pathlib import Path

MOVES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
STORED = Image.fromarray(np.arange(40 * 24 * 3, dtype=np.uint32).reshape(24, 40, 3).astype(np.uint8) // 2 + 40)
GREY = Image.fromarray(np.asarray(STORED.convert("L")).astype(np.uint16) * 257)
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 100, "subsampling": 0}}
PICTURES = [
    *((name, options, STORED) for name, options in LOSSLESS.items()),
    *(("TIFF", {"compression": compression}, image) for compression in ("tiff_lzw", None) for image in (STORED, GREY)),
    ("PNG", {}, GREY),
]
IDS = [f"{name}-{image.mode}-{options.get('compression')}" for name, options, image in PICTURES]


def turned_file(
    path: Path, name: str, options: dict[str, object], image: Image.Image, orientation: int, *, by_xmp: bool = False
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x tiff:Orientation="{orientation}"/>'
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    xmp_options = {"TIFF": {"tiffinfo": {700: xmp.encode()}}, "PNG": {"pnginfo": text}}.get(name, {"xmp": xmp.encode()})
    image.save(path, format=name, **(xmp_options if by_xmp else {"exif": exif}), **options)


def assert_shows(image: Image.Image, expected: Image.Image, tolerance: int) -> None:
    assert image.size == expected.size
    difference = np.asarray(image).astype(int) - np.asarray(expected.convert("RGB")).astype(int)
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("by_xmp", [False, True], ids=["exif", "xmp"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "options", "image"), PICTURES, ids=IDS)
def test_both_frames(
    name: str, options: dict[str, object], image: Image.Image, orientation: int, by_xmp: bool, tmp_path: Path
) -> None:
    path = tmp_path / "turned"
    turned_file(path, name, options, image, orientation, by_xmp=by_xmp)
    eight_bit = STORED.convert("L") if image is GREY else STORED
    tolerance = 6 if name == "JPEG" else 0
    assert_shows(open_image(path), eight_bit, tolerance)
    assert read_size(path) == STORED.size
    expected = eight_bit.transpose(MOVES[orientation]) if orientation in MOVES else eight_bit
    assert_shows(open_image(path, exif_transpose=True), expected, tolerance)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("name", LOSSLESS)
def test_an_orientation_that_does_not_exist_turns_nothing(name: str, orientation: int, tmp_path: Path) -> None:
    turned_file(tmp_path / "image", name, LOSSLESS[name], STORED, orientation)
    for exif_transpose in (False, True):
        image = open_image(tmp_path / "image", exif_transpose=exif_transpose)
        assert_shows(image, STORED, 6 if name == "JPEG" else 0)


@pytest.mark.parametrize("exif_transpose", [False, True])
@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_an_animation_is_its_first_frame(name: str, exif_transpose: bool, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 4), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if name == "WEBP" else {"quality": 100} if name == "MPO" else {}
    frames[0].save(tmp_path / "frames", format=name, save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / "frames") as file:
        assert file.n_frames == 3
    image = open_image(tmp_path / "frames", exif_transpose=exif_transpose)
    assert_shows(image, frames[0], 2 if name == "MPO" else 0)


def test_pages_of_a_turned_tiff_stay_apart(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    STORED.save(tmp_path / "pages.tif", exif=exif, save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert_shows(open_image(tmp_path / "pages.tif"), STORED, 0)
    assert_shows(open_image(tmp_path / "pages.tif", exif_transpose=True), STORED.transpose(MOVES[6]), 0)
