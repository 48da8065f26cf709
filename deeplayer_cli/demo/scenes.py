"""Generated scenes: coloured shapes on a plain background, with referring expressions and exact boxes.

A scene depends on its seed and its difficulty only. Training, evaluation, the training curve and the samples draw their
seeds from separate pools, so no model is evaluated on a scene of its training.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING

import orjson
from PIL import Image, ImageDraw, ImageOps

from deeplayer_cli.demo.expressions import KINDS, Referral, refer
from deeplayer_cli.demo.shapes import COLOURS, SHAPES, Thing, draw
from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from deeplayer_cli.boxes import Resolution

SIDE = 192

# Pools of seeds; no two share a seed.
TRAIN_SEEDS = range(1_000_000_000)
HELD_OUT_SEEDS = range(1_000_000_000, 1_100_000_000)  # for evaluation
CURVE_SEEDS = range(1_100_000_000, 1_200_000_000)  # for the training curve, on which a recipe may be chosen
SAMPLE_SEEDS = range(2_000_000_000, 2_100_000_000)  # for the shipped samples

COMPACT = ((SIDE, SIDE), (SIDE, SIDE), (256, 192), (192, 240), (224, 160), (176, 224))
"""Sizes (width, height) of images that become one tile; a scene draws one of the entries with equal chance."""
LONG = ((384, 192), (192, 384))
"""Sizes (width, height) of images that become two tiles and a thumbnail."""

_PLACING_ATTEMPTS = 40
_REFERRALS_WRITTEN = 4


@dataclass(frozen=True)
class Scene:
    """One image, its objects, and expressions that refer to them.

    Attributes:
        image: RGB image of a size from ``Difficulty.frames``.
        objects: the drawn objects, with tight boxes in pixels.
        referrals: distinct expressions, each true of exactly one object; their kinds alternate.
    """

    image: Image.Image
    objects: tuple[Thing, ...]
    referrals: tuple[Referral, ...]


@dataclass(frozen=True)
class Difficulty:
    """The settings that a scene is drawn with.

    Attributes:
        objects: smallest and largest number of objects.
        small: smallest and largest width and height of small objects, in pixels.
        large: smallest and largest width and height of large objects, in pixels.
        frames: possible sizes (width, height) of the image, in pixels.
        gap: smallest distance between two boxes, in pixels; a negative gap is the largest allowed overlap.
        kinds: kinds of expressions (see ``Referral``).
        alike: probability that a new object copies all attributes but one of an earlier object.
        synonyms: whether expressions may contain synonyms.
    """

    objects: tuple[int, int] = (3, 6)
    small: tuple[int, int] = (32, 44)
    large: tuple[int, int] = (62, 82)
    frames: tuple[Resolution, ...] = COMPACT + LONG
    gap: int = 4
    kinds: tuple[str, ...] = KINDS
    alike: float = 0.4
    synonyms: bool = True


STANDARD = Difficulty()
HARD = Difficulty((6, 9), (24, 32), (44, 58), gap=-6, kinds=(*KINDS, "chain"))
SPLITS = {"standard": STANDARD, "hard": HARD}


def scene(seed: int, difficulty: Difficulty = STANDARD) -> Scene:
    """Draw the scene of a seed. It has enough objects for its difficulty and at least one expression.

    Args:
        seed: seed from a pool (see ``pick``).
        difficulty: settings of the scene.
    """
    rng = random.Random(seed)
    while True:
        image = _background(rng, rng.choice(difficulty.frames))
        things = _place(rng, image, difficulty)
        referrals = (
            refer(rng, things, difficulty.kinds, synonyms=difficulty.synonyms)
            if len(things) >= difficulty.objects[0]
            else ()
        )
        if referrals:
            return Scene(image, things, referrals)


def pick(pool: range, first: int, count: int) -> range:
    """Return the seeds of the scenes ``first`` to ``first + count - 1`` of a pool, counted from 0.

    Raises:
        DeeplayerError: the pool does not have all of these scenes.
    """
    if first < 0 or first + count > len(pool):
        raise DeeplayerError(
            f"scenes {first:,} to {first + count - 1:,} do not all exist (there are {len(pool):,}): "
            "choose another --seed or fewer scenes"
        )
    return pool[first : first + count]


def named(pool: range, first: int, count: int) -> dict[str, int]:
    """Map scene names, as ``write`` uses them, to seeds: scenes ``first`` to ``first + count - 1`` of a pool.

    Raises:
        DeeplayerError: the pool does not have all of these scenes.
    """
    return {f"scene-{first + index:04d}": seed for index, seed in enumerate(pick(pool, first, count))}


def write(folder: Path, pool: range, first: int, count: int, difficulty: Difficulty = STANDARD) -> None:
    """Write scenes as ``images/*.png``, and their expressions with gold boxes as ``requests.jsonl``.

    Args:
        folder: folder to write to; created if missing.
        pool: pool of seeds.
        first: number of the first scene in the pool, from 0.
        count: number of scenes; each has up to four requests.
        difficulty: settings of the scenes.

    Raises:
        DeeplayerError: the pool does not have all of these scenes, the folder has one of these files with another
            content, or a file cannot be written.
    """
    seeds = named(pool, first, count)
    requests = folder / "requests.jsonl"
    # Each scene is drawn twice: for its rows, and for its image. So no images are kept in memory, and none is written
    # before requests.jsonl is checked.
    rows = b"".join(row for name, seed in seeds.items() for row in _rows(name, scene(seed, difficulty).referrals))
    with writing(str(folder)):
        _holds(requests, rows)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for name, seed in seeds.items():
            _put(folder / _image(name), _png(scene(seed, difficulty).image))
        _put(requests, rows)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file has a content; a file with another content is refused."""
    if not path.exists():
        return False
    if path.read_bytes() != content:
        raise DeeplayerError(f"{path} exists and holds something else: write to another folder")
    return True


def _put(path: Path, content: bytes) -> None:
    if not _holds(path, content):
        with replacing(path) as partial:
            partial.write_bytes(content)


def _image(name: str) -> str:
    return f"images/{name}.png"


def _rows(name: str, referrals: Iterable[Referral]) -> Iterator[bytes]:
    for number, referral in enumerate(islice(referrals, _REFERRALS_WRITTEN)):
        row = {
            "id": f"{name}-{number}",
            "image": _image(name),
            "expression": referral.expression,
            "box": referral.box,
            "kind": referral.kind,
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _place(rng: random.Random, image: Image.Image, difficulty: Difficulty) -> tuple[Thing, ...]:
    """Draw objects whose boxes keep their gap. An object that finds no free place is left out."""
    things: list[Thing] = []
    for _ in range(rng.randint(*difficulty.objects)):
        shape, colour, size = _attributes(rng, things, difficulty.alike)
        extents = difficulty.small if size == "small" else difficulty.large
        for _ in range(_PLACING_ATTEMPTS):
            width = rng.randint(*extents)
            height = min(max(width + rng.randint(-4, 4), extents[0]), extents[1])
            left, top = rng.randint(1, image.width - width - 1), rng.randint(1, image.height - height - 1)
            if all(_apart((left, top, left + width, top + height), other.box, difficulty.gap) for other in things):
                box = draw(image, rng, shape, colour, (left, top, width, height))
                things.append(Thing(shape, colour, size, box))
                break
    return tuple(things)


def _attributes(rng: random.Random, things: Sequence[Thing], alike: float) -> tuple[str, str, str]:
    """Choose shape, colour and size; with probability ``alike``, copy an earlier object and redraw one of the three."""
    new = (rng.choice(SHAPES), rng.choice(tuple(COLOURS)), rng.choice(("small", "small", "large")))
    if not things or rng.random() >= alike:
        return new
    like, changed = rng.choice(things), rng.randrange(3)
    shape, colour, size = (
        fresh if index == changed else old
        for index, (old, fresh) in enumerate(zip((like.shape, like.colour, like.size), new, strict=True))
    )
    return shape, colour, size


def _apart(a: tuple[float, ...], b: tuple[float, ...], gap: int) -> bool:
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def _background(rng: random.Random, size: Resolution) -> Image.Image:
    """Draw an image without objects, in two dull colours."""
    dark, light = _dull(rng), _dull(rng)
    pattern = rng.choice(_PATTERNS)(rng)
    return ImageOps.colorize(pattern.resize(size), dark, light)


def _flat(rng: random.Random) -> Image.Image:
    return Image.new("L", (1, 1), rng.randrange(256))


def _gradient(rng: random.Random) -> Image.Image:
    return Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270)))


def _noise(rng: random.Random) -> Image.Image:
    cells = rng.choice((12, 24, 48, 96))
    return Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))


def _stripes(rng: random.Random) -> Image.Image:
    period, steep = rng.randint(6, 24), rng.randint(-2, 2)
    return Image.frombytes(
        "L", (96, 96), bytes(255 * ((x + steep * y) // period % 2) for y in range(96) for x in range(96))
    )


def _scratches(rng: random.Random) -> Image.Image:
    image = Image.new("L", (192, 192), rng.randrange(256))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(5, 25)):
        x, y = rng.randrange(192), rng.randrange(192)
        pen.line((x, y, x + rng.randint(-30, 30), y + rng.randint(-30, 30)), rng.randrange(256), rng.randint(1, 3))
    return image


_PATTERNS = (_flat, _gradient, _noise, _stripes, _scratches)


def _dull(rng: random.Random) -> tuple[int, int, int]:
    """Choose a greyish colour; no object has such a colour."""
    grey = rng.randint(60, 140)
    red, green, blue = (grey + rng.randint(-18, 18) for _ in range(3))
    return red, green, blue
