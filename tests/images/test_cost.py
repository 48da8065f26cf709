"""What an image costs is bounded: memory by a formula, time by `--image-timeout`; and a run ends whatever comes."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

GOOD = Path(__file__).parents[2] / "sample_data" / "images" / "scene-0000.png"

MEASURE = """
import io, resource, sys
from pathlib import Path
from PIL import Image
from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.models.internvl.tiling import Tiling, tile_grid, tile_image

def held():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):  # what is loaded once is not an image's own cost
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, format=kind)
    Image.open(buffer).convert("RGB")
tile_image(open_image(Path(sys.argv[1])), Tiling())
for path in sorted(Path(sys.argv[2]).iterdir()):
    width, height = (int(side) for side in path.name.split(".")[1].split("x"))
    columns, _ = tile_grid((width, height), Tiling())
    bound = 17 * width * height + 3 * path.stat().st_size + 4 * 448 * columns * height + 12 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (held() + int(bound * float(sys.argv[3])), resource.RLIM_INFINITY))
    try:
        for turned in (False, True):
            tile_image(open_image(path, max_pixels=width * height, exif_transpose=turned), Tiling())
        print(path.name, "fits")
    except (RowError, MemoryError) as error:
        print(path.name, getattr(error, "kind", "MemoryError"), error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def save(folder: Path, kind: str, image: Image.Image, name: str, **options: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    if name not in ("GIF", "BMP"):
        options["exif"] = exif
    image.save(folder / f"{kind}.{image.width}x{image.height}", format=name, **options)


def make_large_images(folder: Path) -> None:
    """Images of some four million pixels, of every format and kind of pixel."""
    y, x = np.mgrid[0:1600, 0:2500]
    colour = Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8))
    grey = np.asarray(colour.convert("L"))
    for name in ("PNG", "BMP", "GIF", "TIFF"):
        save(folder, name.lower(), colour, name)
    save(folder, "jpeg", colour, "JPEG", progressive=True, subsampling=0)
    save(folder, "cmyk", colour.convert("CMYK"), "JPEG", progressive=True)
    save(folder, "webp", colour, "WEBP", method=0)
    save(folder, "webp-lossless", colour.convert("RGBA"), "WEBP", lossless=True, method=0, quality=0)
    for kind, values in (("i16", grey.astype(np.uint16) * 257), ("i32", grey.astype(np.int32)), ("f32", grey / 255)):
        values = values.astype(np.float32) if kind == "f32" else values
        save(folder, kind, Image.fromarray(values), "TIFF", compression="tiff_lzw")
    for size in ((65_535, 30), (30, 65_535)):
        save(folder, "long" if size[1] == 30 else "high", Image.new("RGB", size), "PNG")


def measured(folder: Path, share: float) -> list[str]:
    """What becomes of images where only this share of their memory, by the formula, is allowed."""
    command = [sys.executable, "-c", MEASURE, str(GOOD), str(folder), str(share)]
    environment = {"PYTHONPATH": ":".join(sys.path), "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_memory_is_bounded_by_the_documented_formula(tmp_path: Path) -> None:
    make_large_images(tmp_path)
    assert len(lines := measured(tmp_path, 1.0)) == 13
    assert [line for line in lines if not line.endswith("fits")] == []
    tight = [line for line in measured(tmp_path, 0.6) if not line.endswith("fits")]
    assert any(line.startswith("webp") for line in tight), "the bound is loose: this test cannot fail"
    assert not any(line.endswith(": ") for line in tight), "an error says nothing"


def png(width: int, height: int) -> bytes:
    """A black grey PNG, compressed in pieces: it may have any size."""

    def chunk(data: bytes) -> bytes:
        return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))

    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    rows = (width + 1) * height
    data = b"".join(packer.compress(piece[: min(len(piece), rows - at)]) for at in range(0, rows, len(piece)))
    header = chunk(b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT" + data + packer.flush()) + chunk(b"IEND")


def ground(folder: Path, code: str, *options: str) -> list[dict]:
    """Ground every image of a folder with the demo model in a process of its own; return the rows."""
    rows = [{"image": path.name, "expression": "the rightmost cross"} for path in sorted(folder.iterdir())]
    requests, output = folder / "rows.jsonl", folder / "out.jsonl"
    requests.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    arguments = ["ground", str(requests), "--model", "demo", "--method", "none", "-o", str(output), *options]
    start = f"{code}\nimport sys\nfrom deeplayer_cli.app import main\nsys.argv[1:] = {arguments!r}\nsys.exit(main())"
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, env=environment, timeout=240, check=False
    )
    assert finished.returncode == 1, finished.stderr
    return [orjson.loads(line) for line in output.read_bytes().splitlines()]


def test_a_long_image_between_two_good_ones(tmp_path: Path) -> None:
    """178,956,970 x 1 pixels, within the limit of pixels: a resize would need gigabytes."""
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(GOOD.read_bytes())
    (tmp_path / "b.png").write_bytes(png(178_956_970, 1))
    first, long, last = ground(
        tmp_path, "import resource; resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))"
    )
    assert long["error"]["type"] == "image_too_large" and "65,535" in long["error"]["message"]
    assert first["box"] == last["box"] is not None


BLOCKING = """
import threading
from deeplayer_cli.runtime import windows
real = windows.open_image
def open_image(path, **options):
    if path.name.startswith("stuck"):
        threading.Event().wait()
    return real(path, **options)
windows.open_image = open_image
"""


def test_a_run_ends_although_threads_never_return(tmp_path: Path) -> None:
    for name in ("a.png", "stuck-1.png", "stuck-2.png", "stuck-3.png", "z.png"):
        (tmp_path / name).write_bytes(GOOD.read_bytes())
    rows = ground(tmp_path, BLOCKING, "--image-timeout", "2.5", "--workers", "2")
    assert [row["status"] for row in rows] == ["ok", "error", "error", "error", "ok"]
    for row in rows[1:4]:
        assert row["error"]["type"] == "image_timeout"
        assert row["image"] in row["error"]["message"] and "longer than 2.5 seconds" in row["error"]["message"]
    assert rows[0]["box"] == rows[4]["box"]
