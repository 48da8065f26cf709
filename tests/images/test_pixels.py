"""Every mode that Pillow can hold, beside its 8-bit RGB twin."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import FORMATS, open_image
from deeplayer_cli.images.pixels import to_rgb

SCENE = Path(__file__).parents[2] / "sample_data" / "images" / "scene-0000.png"
COLOUR = Image.open(SCENE).convert("RGB").resize((64, 48))
GREY = COLOUR.convert("L")
SCALED = {"I;16": 257, "I;16L": 257, "I;16B": 257, "I": 257, "F": 1 / 255}
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
MODES = [*EIGHT_BIT, *SCALED]
LOSSY = {"LAB": 16, "HSV": 16, "YCbCr": 3}  # what 8 bits of these modes lose of RGB
BY_ANOTHER = {"La": "LA", "PA": "P", "RGBa": "RGBA", "LAB": "LAB"}


def picture(mode: str) -> Image.Image:
    """The scene in a mode; alpha, where there is any, is opaque."""
    if mode in SCALED:
        values = np.asarray(GREY).astype(np.float64)
        kind = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
        factor = SCALED[mode]
        data = (values * factor).astype(kind).tobytes()
        return Image.frombytes(
            mode, GREY.size, data, "raw", "F;32F" if mode == "F" else "I;32" if mode == "I" else mode
        )
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(COLOUR, srgb, lab, outputMode="LAB")
    return COLOUR.convert(BY_ANOTHER[mode]).convert(mode) if mode in BY_ANOTHER else COLOUR.convert(mode)


def twin(mode: str) -> np.ndarray:
    """What the scene is in 8-bit RGB, as far as the mode can hold it."""
    if mode == "1" or mode in ("P", "PA"):
        return np.asarray(picture("1" if mode == "1" else "P").convert("RGB")).astype(int)
    grey = mode in SCALED or mode in ("L", "LA", "La")
    return np.asarray((GREY if grey else COLOUR).convert("RGB")).astype(int)


def storable() -> list[tuple[str, str]]:
    """The formats, each with the modes that Pillow can write it in."""
    found = []
    for name in FORMATS:
        for mode in MODES:
            buffer = BytesIO()
            try:
                picture(mode).save(buffer, format=name)
            except (OSError, KeyError, ValueError):
                continue
            if (Image.open(buffer).mode in SCALED) == (mode in SCALED):  # else the writer has clipped the values
                found.append((name, mode))
    return found


STORABLE = storable()
BEST = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": 100, "chroma": 444},
}


def test_the_list_of_formats_and_modes_is_not_empty_by_accident() -> None:
    assert {name for name, _ in STORABLE} == set(FORMATS)
    assert {mode for _, mode in STORABLE} >= {*SCALED, "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_its_8_bit_twin(mode: str) -> None:
    image = to_rgb(picture(mode))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - twin(mode)).max() <= LOSSY.get(mode, 0)


@pytest.mark.parametrize(("name", "mode"), STORABLE)
def test_every_mode_of_every_format_equals_its_8_bit_twin(name: str, mode: str, tmp_path: Path) -> None:
    picture(mode).save(tmp_path / "image", format=name, **BEST.get(name, {}))
    difference = np.abs(np.asarray(open_image(tmp_path / "image")).astype(int) - twin(mode))
    if name == "GIF" and mode not in ("1", "L", "P"):
        assert difference.mean() < 25  # 256 colours
    else:
        assert difference.max() <= LOSSY.get(mode, 0) + (12 if name in ("JPEG", "AVIF", "HEIF") else 0)


@pytest.mark.parametrize("mode", [mode for mode in EIGHT_BIT if mode != "La"])
def test_8_bit_modes_are_what_pillow_makes_of_them(mode: str) -> None:
    assert to_rgb(picture(mode)).tobytes() == picture(mode).convert("RGB").tobytes()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_compressed_tiffs_hold_the_same(compression: str | None, mode: str, tmp_path: Path) -> None:
    picture(mode).save(tmp_path / "image.tif", compression=compression)
    assert np.array_equal(np.asarray(open_image(tmp_path / "image.tif")), twin(mode))


@pytest.mark.parametrize(("mode", "factor"), [("I", 1), ("I", 257), ("F", 1 / 255), ("F", 1), ("F", 257)])
def test_ranges_of_integers_and_floats(mode: str, factor: float) -> None:
    values = np.asarray(GREY).astype(np.float64) * factor
    image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    assert image.mode == mode
    assert np.array_equal(np.asarray(to_rgb(image)), twin(mode))


@pytest.mark.parametrize(
    ("mode", "value"),
    [*(("I", value) for value in (-1, 65_536, -(2**31), 2**31 - 1))]
    + [("F", value) for value in (-1e-3, 65_536, 1e30, float("nan"), float("inf"), -float("inf"))],
)
def test_values_without_an_agreed_brightness_are_refused(mode: str, value: float, tmp_path: Path) -> None:
    values = np.asarray(GREY).astype(np.int32 if mode == "I" else np.float32)
    values[3, 5] = value
    Image.fromarray(values).save(tmp_path / "image.tif")
    with pytest.raises(RowError, match=r"range from .* to .*; scale them to .*0\.\.255 or 0\.\.65535") as caught:
        open_image(tmp_path / "image.tif")
    assert caught.value.kind == "image_unsupported"
    assert f"{value:g}" in caught.value.message


def tiff(samples: bytes, *, bits: int, kind: int = 1, photometric: int = 1, size: tuple[int, int] = GREY.size) -> bytes:
    """A little-endian TIFF of one strip."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: size[1]}
    tags |= {279: len(samples), 339: kind}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + samples


@pytest.mark.parametrize(
    ("bits", "kind", "dtype"), [(16, 1, np.uint16), (32, 3, np.float32)], ids=["16-bit", "32-bit float"]
)
def test_white_is_zero(bits: int, kind: int, dtype: type, tmp_path: Path) -> None:
    values = (255 - np.asarray(GREY)).astype(dtype) * dtype(257)
    (tmp_path / "image").write_bytes(tiff(values.tobytes(), bits=bits, kind=kind, photometric=0))
    assert np.array_equal(np.asarray(open_image(tmp_path / "image")), twin("L"))


def test_12_bit_grey(tmp_path: Path) -> None:
    values = np.asarray(GREY).astype(int) * 4095 // 255
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    (tmp_path / "image").write_bytes(tiff(packed.astype(np.uint8).tobytes(), bits=12))
    assert np.abs(np.asarray(open_image(tmp_path / "image")).astype(int) - twin("L")).max() <= 1


@pytest.mark.parametrize(
    ("bits", "kind", "samples"), [(64, 3, "64-bit float"), (64, 1, "64-bit integer"), (16, 3, "16-bit float")]
)
def test_samples_that_are_not_supported_are_named(bits: int, kind: int, samples: str, tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff(bytes(4 * 4 * bits // 8), bits=bits, kind=kind, size=(4, 4)))
    with pytest.raises(RowError, match=f"a TIFF with {samples} samples.*save it as") as caught:
        open_image(tmp_path / "image.tif")
    assert caught.value.kind == "image_unsupported"


@pytest.mark.parametrize("chunks", [1, 80])
def test_a_png_with_too_much_text_says_so(chunks: int, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    for number in range(chunks):
        text.add_text(f"note {number}", "x" * (2**21 if chunks == 1 else 2**20 - 9), zip=True)
    COLOUR.save(tmp_path / "image.png", pnginfo=text)
    with pytest.raises(RowError, match=r"more text in its PNG chunks.*without the text") as caught:
        open_image(tmp_path / "image.png")
    assert caught.value.kind == "image_too_large"


def test_the_model_sees_the_same_box(tmp_path: Path) -> None:
    """Of a 16-bit, a 32-bit and a float picture as of their 8-bit twin."""
    from deeplayer_cli import Grounder
    from deeplayer_cli.boxes import box_iou

    values = np.asarray(Image.open(SCENE).convert("L"))
    variants = [values, values.astype(np.uint16) * 257, values.astype(np.int32) * 257, values / np.float32(255)]
    for number, variant in enumerate(variants):
        Image.fromarray(variant).save(tmp_path / f"{number}.tif")
    rows = [{"image": str(path), "expression": "the rightmost cross"} for path in sorted(tmp_path.iterdir())]
    twin_box, *boxes = [row.box for row in Grounder.load("demo", method="none").ground(rows)]
    assert twin_box is not None
    for box in boxes:
        assert box is not None and box_iou(box, twin_box) >= 0.98
