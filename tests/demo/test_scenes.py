from __future__ import annotations

import random
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
from PIL import Image, ImageChops, ImageStat

from deeplayer_cli.demo import scenes
from deeplayer_cli.demo.expressions import KINDS, WORDS
from deeplayer_cli.demo.run import TILING
from deeplayer_cli.demo.shapes import COLOURS, SHAPES, SIZES, Thing, draw
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.tiling import count_tiles
from tests.demo import photographs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.demo.scenes import Scene

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"
SAMPLES = 24  # scenes
MARGIN = 14  # pixels
POOLS = (scenes.TRAIN_SEEDS, scenes.HELD_OUT_SEEDS, scenes.CURVE_SEEDS, scenes.SAMPLE_SEEDS)
SCENES = [scenes.scene(seed) for seed in range(150)]
HARD = [scenes.scene(seed, scenes.HARD) for seed in range(150)]
FLAT = (100, 100, 100)

# Axis and sign of the wanted side.
SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1), "above": (1, -1), "below": (1, 1)}
SIDES |= {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "highest": (1, -1), "lowest": (1, 1)}
SIDES |= {"over": (1, -1), "under": (1, 1)}
MEANING = {"violet": "purple", "turquoise": "cyan", "disc": "circle", "box": "square", "rhombus": "diamond"}
MEANING |= {"plus": "cross", "little": "small", "tiny": "small", "big": "large"}
RELATION = "(?:to the )?(left|right) of|(above|over|below|under)"


def named(phrase: str, things: Sequence[Thing]) -> list[Thing]:
    """The things that a noun phrase fits, read word by word."""
    for said in phrase.split():
        word = MEANING.get(said, said)
        if word in COLOURS:
            things = [thing for thing in things if thing.colour == word]
        elif word in SIZES:
            things = [thing for thing in things if thing.size == word]
        elif word in SHAPES:
            things = [thing for thing in things if thing.shape == word]
        else:
            assert word in ("the", "object", "thing", "shape")
    return list(things)


def left_unsaid(expression: str, thing: Thing) -> str:
    """The attributes of a thing that no word before a relation tells, or all of them."""
    noun = re.split(rf" (?:{RELATION}) the ", expression)[0].removesuffix("at the top").removesuffix("at the bottom")
    told = {MEANING.get(word, word) for word in noun.split()}
    attributes = (thing.size, thing.colour, thing.shape)
    return " ".join(one for one in attributes if one not in told) or " ".join(attributes)


def lead(thing: Thing, other: Thing, side: str) -> float:
    """How far ``thing`` lies further to a side than ``other``, in pixels between centres."""
    axis, sign = SIDES[side]
    return sign * (thing.box[axis] + thing.box[axis + 2] - other.box[axis] - other.box[axis + 2]) / 2


def meant(expression: str, things: Sequence[Thing]) -> tuple[str, list[Thing]]:
    """The kind of an expression, and what it is true of."""
    if match := re.fullmatch(f"the (.+?) (?:{RELATION}) (the .+)", expression):
        noun, side = match[1], match[2] or match[3]
        kind, (anchor,) = meant(match[4].replace("that is ", ""), things)
        leads = [(lead(thing, anchor, side), thing) for thing in named(noun, things) if thing is not anchor]
        assert all(abs(distance) >= MARGIN for distance, _ in leads)
        found = [thing for distance, thing in leads if distance > 0]
        return {"attribute": "relation", "relation": "chain"}[kind], found
    extreme = re.fullmatch(r"the (?P<side>\w+most|highest|lowest) (?P<noun>.+)", expression)
    if match := extreme or re.fullmatch(r"the (?P<noun>.+) (?:on|at|farthest to) the (?P<side>\w+)", expression):
        found = named(match["noun"], things)
        assert len(found) > 1
        ahead = [
            thing
            for thing in found
            if all(lead(thing, other, match["side"]) >= MARGIN for other in found if other is not thing)
        ]
        return "place", ahead
    return "attribute", named(expression, things)


@pytest.mark.parametrize(("drawn", "all_kinds"), [(SCENES, KINDS), (HARD, (*KINDS, "chain"))])
def test_every_expression_is_true_of_exactly_one_object(drawn: Sequence[Scene], all_kinds: Sequence[str]) -> None:
    kinds = set()
    for scene in drawn:
        for referral in scene.referrals:
            kind, things = meant(referral.expression, scene.objects)
            assert (kind, [thing.box for thing in things]) == (referral.kind, [referral.box]), referral
            assert referral.unsaid == left_unsaid(referral.expression, things[0])
            kinds.add(kind)
        assert len({referral.expression for referral in scene.referrals}) == len(scene.referrals)
    assert kinds == set(all_kinds)


def test_all_words_are_known_and_used() -> None:
    said = {word for scene in SCENES + HARD for referral in scene.referrals for word in referral.expression.split()}
    assert said == set(WORDS)


def test_hard_scenes_are_harder() -> None:
    assert min(len(scene.objects) for scene in HARD) > np.mean([len(scene.objects) for scene in SCENES])
    assert any(not apart(*pair, gap=0) for scene in HARD for pair in combinations(scene.objects, 2))
    assert all(apart(*pair, gap=-6) for scene in HARD for pair in combinations(scene.objects, 2))
    assert all(apart(*pair, gap=4) for scene in SCENES for pair in combinations(scene.objects, 2))


def apart(one: Thing, other: Thing, gap: int) -> bool:
    """Whether two boxes keep a gap along some axis."""
    return any(a.box[axis + 2] + gap <= b.box[axis] for axis in (0, 1) for a, b in ((one, other), (other, one)))


def test_frames_are_one_tile_or_two_and_a_thumbnail() -> None:
    assert [count_tiles(frame, TILING) for frame in scenes.COMPACT] == [1] * 6
    assert [count_tiles(frame, TILING) for frame in scenes.LONG] == [3] * 2
    assert {scene.image.size for scene in SCENES} == {*scenes.COMPACT, *scenes.LONG}


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
    with pytest.raises(DeeplayerError, match="exists and holds something else"):
        scenes.write(tmp_path, scenes.HELD_OUT_SEEDS, 1, 1)
    assert (tmp_path / "requests.jsonl").read_bytes() == before
    assert not (tmp_path / "images" / "scene-0001.png").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeeplayerError, match="cannot be written"):
        scenes.write(tmp_path / "file", scenes.HELD_OUT_SEEDS, 0, 1)


def test_the_shipped_samples_are_drawn_from_their_pool(tmp_path: Path) -> None:
    samples = (SAMPLE_DATA / "requests.jsonl").read_bytes()
    scenes.write(tmp_path, scenes.SAMPLE_SEEDS, 0, SAMPLES)
    drawn = (tmp_path / "requests.jsonl").read_bytes()
    for image in (tmp_path / "images").iterdir():
        with Image.open(image) as mine, Image.open(SAMPLE_DATA / "images" / image.name) as shipped:
            assert mine.tobytes() == shipped.tobytes()
    assert samples == drawn + photographs.write(tmp_path)
    for name, (_, size) in photographs.FRAMES.items():
        with Image.open(tmp_path / "images" / name) as mine, Image.open(SAMPLE_DATA / "images" / name) as shipped:
            assert mine.size == shipped.size == size
            assert max(ImageStat.Stat(ImageChops.difference(mine, shipped)).mean) < 2  # libjpegs differ a little
    shipped_names = {path.name for path in (SAMPLE_DATA / "images").iterdir()}
    assert shipped_names == {path.name for path in (tmp_path / "images").iterdir()}
