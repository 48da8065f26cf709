"""Generated scenes: coloured shapes on a plain background, with referring expressions and exact boxes.

A scene is a function of its seed and of nothing else. Whoever draws scenes takes seeds from a pool of its own, and no
two pools share a seed: the scenes that a model is judged on are never those it was trained on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import orjson
from PIL import Image, ImageOps

from deeplayer_cli.demo.expressions import Referral, refer
from deeplayer_cli.demo.shapes import COLOURS, SHAPES, Thing, draw
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SIDE = 192

# The pools.
TRAIN_SEEDS = range(1_000_000_000)
HELD_OUT_SEEDS = range(1_000_000_000, 1_100_000_000)  # for whoever wants to know how good a model is
CURVE_SEEDS = range(1_100_000_000, 1_200_000_000)  # for the training curve, by which a recipe may be chosen
SAMPLE_SEEDS = range(2_000_000_000, 2_100_000_000)  # for the shipped samples

_GAP = 4  # pixels between two boxes: touching shapes would make "tight" a matter of drawing order
_SIZES = {"small": (34, 46), "large": (60, 82)}
_PLACING_ATTEMPTS = 40
_REFERRALS_WRITTEN = 4


@dataclass(frozen=True)
class Scene:
    """One picture and what can be said about it.

    Attributes:
        image: RGB, 192 x 192.
        objects: what was drawn, with tight boxes in pixels.
        referrals: distinct expressions, each true of exactly one object; kinds alternate.
    """

    image: Image.Image
    objects: tuple[Thing, ...]
    referrals: tuple[Referral, ...]


@dataclass(frozen=True)
class Difficulty:
    """How many objects a scene shows and which kinds of expression it may use."""

    objects: tuple[int, int] = (3, 6)
    kinds: tuple[str, ...] = ("attribute", "place", "relation")


def scene(seed: int, difficulty: Difficulty | None = None) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: one of a pool; see ``pick``.
        difficulty: what the scene may hold; by default 3 to 6 objects and every kind of expression.
    """
    difficulty = difficulty or Difficulty()
    rng = random.Random(seed)
    while True:
        image = _background(rng)
        things = _place(rng, image, rng.randint(*difficulty.objects))
        referrals = refer(rng, things, difficulty.kinds) if len(things) >= difficulty.objects[0] else ()
        if referrals:
            return Scene(image, things, referrals)


def pick(pool: range, first: int, count: int) -> range:
    """Take the seeds of scenes number ``first`` to ``first + count - 1`` of a pool.

    Raises:
        DeeplayerError: the pool does not have all of them.
    """
    if first < 0 or first + count > len(pool):
        raise DeeplayerError(
            f"scenes {first:,} to {first + count - 1:,} are not all among the {len(pool):,} that can be drawn: "
            "choose another --seed or fewer scenes"
        )
    return pool[first : first + count]


def named(pool: range, first: int, count: int) -> dict[str, int]:
    """Seeds of scenes number ``first`` to ``first + count - 1`` of a pool, by the names that ``write`` gives them.

    Raises:
        DeeplayerError: the pool does not have all of them.
    """
    return {f"scene-{first + index:04d}": seed for index, seed in enumerate(pick(pool, first, count))}


def write(folder: Path, pool: range, first: int, count: int) -> None:
    """Write scenes as ``images/*.png`` and their expressions, gold boxes included, as ``requests.jsonl``.

    Args:
        folder: made if missing.
        pool: whose scenes.
        first: number of the first scene in the pool; the others follow.
        count: number of scenes; about four requests each.

    Raises:
        DeeplayerError: the pool does not have these scenes, a ``requests.jsonl`` with other rows exists, or the system
            refuses to write.
    """
    seeds = named(pool, first, count)
    requests = folder / "requests.jsonl"
    # Drawn twice, once for the rows and once for the images: so nothing is kept in memory, or written before it may be.
    rows = b"".join(row for name, seed in seeds.items() for row in _rows(name, scene(seed).referrals))
    try:
        if requests.exists() and requests.read_bytes() != rows:
            raise DeeplayerError(f"{requests} exists and holds other rows: write to another folder")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for name, seed in seeds.items():
            scene(seed).image.save(folder / _image(name), optimize=True)
        requests.write_bytes(rows)
    except OSError as error:
        raise DeeplayerError(f"{folder} cannot be written: {error.strerror or error}") from error


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


def _place(rng: random.Random, image: Image.Image, count: int) -> tuple[Thing, ...]:
    """Draw up to ``count`` objects whose boxes keep a gap; a crowded picture ends up with fewer."""
    things: list[Thing] = []
    for _ in range(count):
        size = rng.choice(("small", "small", "large"))
        shape, colour = rng.choice(SHAPES), rng.choice(tuple(COLOURS))
        for _ in range(_PLACING_ATTEMPTS):
            width = rng.randint(*_SIZES[size])
            height = min(max(width + rng.randint(-4, 4), _SIZES[size][0]), _SIZES[size][1])
            left, top = rng.randint(1, SIDE - width - 1), rng.randint(1, SIDE - height - 1)
            if all(_apart((left, top, left + width, top + height), other.box) for other in things):
                box = draw(image, rng, shape, colour, (left, top, width, height))
                things.append(Thing(shape, colour, size, box))
                break
    return tuple(things)


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] + _GAP <= b[0] or b[2] + _GAP <= a[0] or a[3] + _GAP <= b[1] or b[3] + _GAP <= a[1]


def _background(rng: random.Random) -> Image.Image:
    style = rng.choice(("flat", "gradient", "noise"))
    dark, light = _dull(rng), _dull(rng)
    if style == "flat":
        return Image.new("RGB", (SIDE, SIDE), dark)
    if style == "gradient":
        ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((SIDE, SIDE))
    else:
        cells = rng.choice((12, 24, 48, 96))
        ramp = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells)).resize((SIDE, SIDE))
    return ImageOps.colorize(ramp, dark, light)


def _dull(rng: random.Random) -> tuple[int, int, int]:
    """A greyish colour that no object has."""
    grey = rng.randint(60, 140)
    red, green, blue = (grey + rng.randint(-18, 18) for _ in range(3))
    return red, green, blue
