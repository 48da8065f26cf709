from __future__ import annotations

import random
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
from PIL import Image

from deeplayer_cli.demo import scenes
from deeplayer_cli.demo.shapes import COLOURS, SHAPES, SIZES, Thing, draw
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"
MARGIN = 14  # pixels
POOLS = (scenes.TRAIN_SEEDS, scenes.HELD_OUT_SEEDS, scenes.CURVE_SEEDS, scenes.SAMPLE_SEEDS)
SCENES = [scenes.scene(seed) for seed in range(150)]
FLAT = (100, 100, 100)

# Axis and sign of the wanted side.
SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1), "above": (1, -1), "below": (1, 1)}
SIDES |= {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "lowest": (1, 1)}


def named(phrase: str, things: Sequence[Thing]) -> list[Thing]:
    """The things that a noun phrase fits, read word by word."""
    for word in phrase.split():
        if word in COLOURS:
            things = [thing for thing in things if thing.colour == word]
        elif word in SIZES:
            things = [thing for thing in things if thing.size == word]
        elif word in SHAPES:
            things = [thing for thing in things if thing.shape == word]
        else:
            assert word in ("the", "object")
    return list(things)


def lead(thing: Thing, other: Thing, side: str) -> float:
    """How far ``thing`` lies further to a side than ``other``, in pixels between centres."""
    axis, sign = SIDES[side]
    return sign * (thing.box[axis] + thing.box[axis + 2] - other.box[axis] - other.box[axis + 2]) / 2


def meant(expression: str, things: Sequence[Thing]) -> tuple[str, list[Thing]]:
    """The kind of an expression, and what it is true of."""
    if match := re.fullmatch(r"the (.+?) (left of|right of|above|below) (the .+)", expression):
        (anchor,) = named(match[3], things)
        side = match[2].split()[0]
        leads = [(lead(thing, anchor, side), thing) for thing in named(match[1], things) if thing is not anchor]
        assert all(abs(distance) >= MARGIN for distance, _ in leads)
        return "relation", [thing for distance, thing in leads if distance > 0]
    extreme = re.fullmatch(r"the (?P<side>\w+most|lowest) (?P<noun>.+)", expression)
    if match := extreme or re.fullmatch(r"the (?P<noun>.+) (?:on|at) the (?P<side>\w+)", expression):
        found = named(match["noun"], things)
        assert len(found) > 1
        ahead = [
            thing
            for thing in found
            if all(lead(thing, other, match["side"]) >= MARGIN for other in found if other is not thing)
        ]
        return "place", ahead
    return "attribute", named(expression, things)


def test_every_expression_is_true_of_exactly_one_object() -> None:
    kinds = set()
    for scene in SCENES:
        for referral in scene.referrals:
            kind, things = meant(referral.expression, scene.objects)
            assert (kind, [thing.box for thing in things]) == (referral.kind, [referral.box]), referral
            assert referral.name.split() == [things[0].size, things[0].colour, things[0].shape]
            kinds.add(kind)
        assert len({referral.expression for referral in scene.referrals}) == len(scene.referrals)
    assert kinds == {"attribute", "place", "relation"}


def test_a_scene_is_a_function_of_its_seed() -> None:
    for seed, scene in enumerate(SCENES[:20]):
        again = scenes.scene(seed)
        assert again.image.tobytes() == scene.image.tobytes()
        assert (again.objects, again.referrals) == (scene.objects, scene.referrals)
    assert len({scene.image.tobytes() for scene in SCENES}) == len(SCENES)


def test_no_two_pools_share_a_seed() -> None:
    for one, other in combinations(POOLS, 2):
        assert one.stop <= other.start or other.stop <= one.start


def test_picking_stays_in_the_pool() -> None:
    pool = scenes.HELD_OUT_SEEDS
    assert scenes.pick(pool, 5, 3) == range(pool.start + 5, pool.start + 8)
    assert scenes.pick(pool, len(pool) - 1, 1)[0] == pool[-1]
    for first, count in ((-1, 1), (len(pool), 1), (len(pool) - 1, 2)):
        with pytest.raises(DeeplayerError, match="choose another --seed or fewer scenes"):
            scenes.pick(pool, first, count)


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_are_tight(shape: str) -> None:
    for width, height in ((34, 34), (41, 46), (60, 61), (82, 78)):
        image = Image.new("RGB", (scenes.SIDE, scenes.SIDE), FLAT)
        box = draw(image, random.Random(0), shape, "red", (20, 30, width, height))
        rows, columns = (np.asarray(image) != FLAT).any(axis=2).nonzero()
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_boxes_in_whole_scenes_are_tight() -> None:
    """On flat backgrounds: nothing is drawn outside of the boxes, and each side of a box touches its object."""
    flat = [scene for scene in SCENES if len(scene.image.getcolors(2**16) or ()) <= len(scene.objects) + 1]
    assert len(flat) > 20
    for scene in flat:
        drawn = (np.asarray(scene.image) != scene.image.getpixel((0, 0))).any(axis=2)
        for thing in scene.objects:
            left, top, right, bottom = map(int, thing.box)
            inside = drawn[top:bottom, left:right]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            drawn[top:bottom, left:right] = False
        assert not drawn.any()


def test_written_scenes(tmp_path: Path) -> None:
    pool = scenes.HELD_OUT_SEEDS
    scenes.write(tmp_path / "new", pool, 3, 2)
    requests = tmp_path / "new" / "requests.jsonl"
    rows = [orjson.loads(line) for line in requests.read_bytes().splitlines()]
    assert {row["image"] for row in rows} == {"images/scene-0003.png", "images/scene-0004.png"}
    assert len({row["id"] for row in rows}) == len(rows)
    said = {(r.expression, r.kind, r.box) for seed in pool[3:5] for r in scenes.scene(seed).referrals}
    assert {(row["expression"], row["kind"], tuple(row["box"])) for row in rows} <= said
    with Image.open(tmp_path / "new" / rows[0]["image"]) as image:
        assert image.tobytes() == scenes.scene(pool[3]).image.tobytes()


def test_other_rows_are_not_overwritten(tmp_path: Path) -> None:
    scenes.write(tmp_path, scenes.HELD_OUT_SEEDS, 0, 1)
    before = (tmp_path / "requests.jsonl").read_bytes()
    scenes.write(tmp_path, scenes.HELD_OUT_SEEDS, 0, 1)
    with pytest.raises(DeeplayerError, match="exists and holds other rows"):
        scenes.write(tmp_path, scenes.HELD_OUT_SEEDS, 1, 1)
    assert (tmp_path / "requests.jsonl").read_bytes() == before
    assert not (tmp_path / "images" / "scene-0001.png").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeeplayerError, match="cannot be written"):
        scenes.write(tmp_path / "file", scenes.HELD_OUT_SEEDS, 0, 1)


def test_the_shipped_samples_are_drawn_from_their_pool(tmp_path: Path) -> None:
    samples = SAMPLE_DATA / "requests.jsonl"
    count = len({orjson.loads(line)["image"] for line in samples.read_bytes().splitlines()})
    scenes.write(tmp_path, scenes.SAMPLE_SEEDS, 0, count)
    assert (tmp_path / "requests.jsonl").read_bytes() == samples.read_bytes()
    for image in (tmp_path / "images").iterdir():
        with Image.open(image) as drawn, Image.open(SAMPLE_DATA / "images" / image.name) as shipped:
            assert drawn.tobytes() == shipped.tobytes()
