"""Files whose headers claim more than any image needs: an error row, before anything of that size is made."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import MAX_SIDE, open_image, read_size
from deeplayer_cli.images.headers import MAX_EXIF_BYTES, MAX_TAG_VALUES

if TYPE_CHECKING:
    from pathlib import Path

MANY = MAX_TAG_VALUES + 1


def tiff(extra: list[tuple[int, int, int, int]], *, order: str = "<", big: bool = False, then: bytes = b"") -> bytes:
    """A grey TIFF of 4 x 4 pixels with more tags: (number, type, count, place of the values)."""
    head, entry = (16, "HHQQ") if big else (8, "HHII")
    tags = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 4, 1, 8), (262, 4, 1, 1), (273, 4, 1, 0), (278, 4, 1, 4)]
    given = {tag[0] for tag in extra}
    tags = sorted([*(tag for tag in [*tags, (279, 4, 1, 16)] if tag[0] not in given), *extra])
    size = head + struct.calcsize(order + ("Q" if big else "H")) + len(tags) * struct.calcsize(order + entry)
    start = struct.pack(order + "2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack(order + "2sHI", b"II", 42, 8)
    start = start.replace(b"II", b"MM") if order == ">" else start
    body = struct.pack(order + ("Q" if big else "H"), len(tags))
    pixels = size + (8 if big else 4)
    for number, kind, count, value in tags:
        body += struct.pack(order + entry, number, kind, count, pixels if number == 273 and count == 1 else value)
    return start + body + bytes(8 if big else 4) + bytes(16) + then


def refused(path: Path, *, size_is_known: bool = False, **options: bool) -> str:
    """Check that a file becomes an error row, and cheaply; return its message."""
    tracemalloc.start()
    try:
        with pytest.raises(RowError) as caught:
            open_image(path, **options)
        assert tracemalloc.get_traced_memory()[1] < 2 * path.stat().st_size + 2**21
    finally:
        tracemalloc.stop()
    assert caught.value.kind == "image_too_large"
    if not size_is_known:
        with pytest.raises(RowError):
            read_size(path)
    return caught.value.message


def test_the_small_tiffs_of_this_file_are_sound(tmp_path: Path) -> None:
    for big in (False, True):
        (tmp_path / "image.tif").write_bytes(tiff([], big=big))
        assert open_image(tmp_path / "image.tif").size == (4, 4)
    (tmp_path / "image.tif").write_bytes(tiff([], order=">"))
    assert open_image(tmp_path / "image.tif").size == (4, 4)


@pytest.mark.parametrize("kind", [3, 4, 5, 8, 9, 10, 11, 12, 13, 16])
@pytest.mark.parametrize("number", [256, 274, 282, 320, 339, 65_000])
def test_a_tiff_tag_of_many_values(number: int, kind: int, tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff([(number, kind, MANY, 0)], then=bytes(8 * MANY)))
    assert f"tag {number} claims {MANY:,} values" in refused(tmp_path / "image.tif")


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("pointer", [0x8769, 0x8825, 0xA005])
def test_a_tag_of_many_values_in_a_directory_inside(pointer: int, order: str, big: bool, tmp_path: Path) -> None:
    place = len(tiff([(pointer, 16 if big else 4, 1, 0)], order=order, big=big))
    inside = struct.pack(order + ("QHHQQQ" if big else "HHHIII"), 1, 0x9000, 3, MANY, 0, 0)
    data = tiff([(pointer, 16 if big else 4, 1, place)], order=order, big=big, then=inside + bytes(2 * MANY))
    (tmp_path / "image.tif").write_bytes(data)
    assert f"claims {MANY:,} values" in refused(tmp_path / "image.tif")


def test_a_tiff_of_many_tags(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff([(number, 4, 1, 0) for number in range(1000, 6000)]))
    assert "claims 5,007 tags" in refused(tmp_path / "image.tif")


def test_a_tiff_of_many_directories(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff([(0x8769, 4, 1, 10_000 + number) for number in range(1000)]))
    assert "directories" in refused(tmp_path / "image.tif")


def test_a_directory_inside_of_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff([(0x8769, 4, 1, 8)]))
    assert open_image(tmp_path / "image.tif").size == (4, 4)


def exif(size: int) -> bytes:
    return b"Exif\0\0" + struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 0x0112, 3, size // 2, 26) + bytes(size)


def jpeg(exif_block: bytes) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="JPEG")
    data = buffer.getvalue()
    parts = [b"Exif\0\0" + exif_block[6:][at : at + 65_000] for at in range(0, len(exif_block), 65_000)]
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts) + data[2:]


def png(exif_block: bytes) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    chunk = b"eXIf" + exif_block[6:]
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return buffer.getvalue()[:33] + whole + buffer.getvalue()[33:]


def webp(exif_block: bytes) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="WEBP", exif=exif_block)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [jpeg, png, webp])
def test_exif_is_read_up_to_a_limit(make, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(make(exif(MAX_EXIF_BYTES // 2)))
    assert open_image(path, exif_transpose=True).size == (4, 4)
    path.write_bytes(make(exif(2 * MAX_EXIF_BYTES)))
    assert "of EXIF" in refused(path, size_is_known=make is not jpeg, exif_transpose=True)


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)])
@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF"])
def test_a_side_is_bounded(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("L", size).save(tmp_path / "image", format=name)
    assert f"{size[0]} x {size[1]} pixels; a side may have at most 65,535" in refused(tmp_path / "image")


@pytest.mark.parametrize("size", [(MAX_SIDE, 1), (1, MAX_SIDE)])
def test_the_longest_side_is_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("L", size).save(tmp_path / "image.png")
    assert open_image(tmp_path / "image.png").size == size


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(8)}], ids=["VP8", "VP8L", "VP8X"])
def test_the_canvas_of_a_webp_is_bounded_before_it_is_made(options, tmp_path: Path, monkeypatch) -> None:
    Image.new("RGB", (301, 200)).save(tmp_path / "image", format="WEBP", **options)
    assert open_image(tmp_path / "image", max_pixels=60_200).size == (301, 200)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow makes room for the canvas"))
    with pytest.raises(RowError, match="301 x 200 pixels; at most 60,199 are decoded") as caught:
        open_image(tmp_path / "image", max_pixels=60_199)
    assert caught.value.kind == "image_too_large"


@pytest.mark.parametrize("big", [False, True])
def test_the_tiles_of_a_tiff_are_bounded(big: bool, tmp_path: Path) -> None:
    tile = [(322, 4, 1, 20_000), (323, 4, 1, 20_000)]
    (tmp_path / "image.tif").write_bytes(tiff(tile, big=big))
    assert "tiles have 20000 x 20000 pixels" in refused(tmp_path / "image.tif")


@pytest.mark.parametrize("piece", ["strip", "tile"])
def test_strips_and_tiles_do_not_cover_an_image_again_and_again(piece: str, tmp_path: Path) -> None:
    n = 1000
    strips, tiles = [(273, 4, n, 8), (278, 4, 1, 3)], [(322, 4, 1, 3), (323, 4, 1, 3), (324, 4, n, 8)]
    (tmp_path / "image.tif").write_bytes(tiff(strips if piece == "strip" else tiles, then=bytes(4 * n)))
    assert f"its {n:,} strips or tiles cover it more than 16 times" in refused(tmp_path / "image.tif")


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("rows", [1, 2, 23, 24, 25, 2**32 - 1])
def test_strips_of_every_height_are_decoded(rows: int, planar: int, tmp_path: Path) -> None:
    height, planes = 24, 3 if planar == 2 else 1
    image = Image.effect_noise((5, height), 90).convert("RGB")
    pixels = b"".join(band.tobytes() for band in image.split()) if planar == 2 else image.tobytes()
    n, row = -(-height // rows), 5 if planar == 2 else 15
    starts = [plane * row * height + strip * rows * row for plane in range(planes) for strip in range(n)]
    tags = [(256, 1, 5), (257, 1, height), (258, 3, 0), (262, 1, 2), (273, len(starts), 0), (277, 1, 3), (278, 1, rows)]
    tags += [(284, 1, planar)]
    at = 8 + 2 + 12 * len(tags) + 4
    offsets = struct.pack(f"<{len(starts)}I", *(at + 12 + 4 * len(starts) + start for start in starts))
    body = b""
    for number, count, value in tags:
        inline = at + 12 + 4 if count == 1 and number == 273 else at + 12
        body += struct.pack("<HHII", number, 4, count, {258: at, 273: inline}.get(number, value))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    (tmp_path / "image.tif").write_bytes(head + body + bytes(4) + struct.pack("<3I", 8, 8, 8) + offsets + pixels)
    assert open_image(tmp_path / "image.tif").tobytes() == image.tobytes()


def test_a_header_that_points_beyond_every_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63 - 9) + bytes(90))
    with pytest.raises(RowError) as caught:
        open_image(tmp_path / "image.tif")
    assert caught.value.kind == "image_broken"


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int]) -> bytes:
    """A GIF with a logical screen, and a frame (left, top, width, height) of one colour in it."""
    buffer = BytesIO()
    Image.new("P", frame[2:]).save(buffer, format="GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", *screen)
    at = data.index(b",", 13)
    data[at + 1 : at + 9] = struct.pack("<HHHH", *frame)
    return bytes(data)


@pytest.mark.parametrize(
    ("screen", "frame"), [((65_535, 65_535), (0, 0, 1, 1)), ((1, 1), (65_000, 65_000, 1, 1))], ids=["screen", "frame"]
)
def test_the_screen_of_a_gif_is_bounded(screen, frame, tmp_path: Path) -> None:
    (tmp_path / "image.gif").write_bytes(gif(screen, frame))
    refused(tmp_path / "image.gif")
