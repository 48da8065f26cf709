"""Pictures like photographs, for ``sample_data``: larger than a tile, of odd sizes, with lens, light and grain."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import orjson
from PIL import Image, ImageChops, ImageFilter, ImageOps

from deeplayer_cli.demo.scenes import SAMPLE_SEEDS, Difficulty, scene

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.boxes import Resolution

FRAMES: dict[str, tuple[Resolution, Resolution]] = {  # how large it is drawn, and how large it is stored
    "photo-0.jpg": ((256, 192), (1037, 779)),
    "photo-1.jpg": ((192, 240), (613, 767)),
    "photo-2.jpg": ((384, 192), (1201, 599)),
}
_REQUESTS = 4  # each
_GRAIN = 0.08


def write(folder: Path) -> bytes:
    """Write the pictures into ``folder/images``; returns their requests as JSONL."""
    rows = b""
    seeds = SAMPLE_SEEDS[-len(FRAMES) :]
    for seed, (name, (frame, size)) in zip(seeds, FRAMES.items(), strict=True):
        drawn = scene(seed, Difficulty(frames=(frame,)))
        photograph(drawn.image, size, random.Random(seed)).save(
            folder / "images" / name, quality=70, progressive=True, dpi=(72, 72)
        )
        scale = (size[0] / frame[0], size[1] / frame[1])
        for number, referral in enumerate(drawn.referrals[:_REQUESTS]):
            box = [round(edge * scale[axis % 2], 1) for axis, edge in enumerate(referral.box)]
            row = {"id": f"{name[:-4]}-{number}", "image": f"images/{name}", "expression": referral.expression}
            rows += orjson.dumps(row | {"box": box, "kind": referral.kind}, option=orjson.OPT_APPEND_NEWLINE)
    return rows


def photograph(image: Image.Image, size: Resolution, rng: random.Random) -> Image.Image:
    """The picture as through a lens: enlarged, a little soft, darker towards the corners, with grain."""
    large = image.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1.5))
    light = ImageOps.colorize(Image.radial_gradient("L").resize(size), "white", (110, 105, 100))
    grain = Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).filter(ImageFilter.GaussianBlur(0.8))
    return Image.blend(ImageChops.multiply(large, light), grain.convert("RGB"), _GRAIN)
