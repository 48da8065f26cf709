"""Shards: all rows about an image on one of them, and all shards together the whole."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import RowError
from deeplayer_cli.schema import BadRequest, Request
from deeplayer_cli.schema.row_ids import Ids
from deeplayer_cli.sources import by_image, open_source
from deeplayer_cli.sources.shards import rows_of_shard

if TYPE_CHECKING:
    from collections.abc import Sequence


def row(number: int, image: str | None) -> Request | BadRequest:
    if image is None:
        return BadRequest(number, None, None, None, {}, f"f:{number}", RowError("bad_row", "bad"))
    return Request(number, image, Path(image), "dog", None, {}, f"f:{number}", None)


@given(images=st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=40), count=st.integers(1, 9))
def test_shards_are_the_whole_and_keep_images_together(images: Sequence[str | None], count: int) -> None:
    rows = [row(number, image) for number, image in enumerate(images)]
    shards = [list(rows_of_shard(rows, index, count)) for index in range(count)]
    assert sorted(one.id for shard in shards for one in shard) == list(range(len(rows)))
    shard_of = defaultdict(set)
    for index, shard in enumerate(shards):
        assert [one.id for one in shard] == sorted(one.id for one in shard)
        for one in shard:
            shard_of[one.image].add(index)
    shard_of.pop(None, None)
    assert all(len(where) == 1 for where in shard_of.values())
    in_turn = list(dict.fromkeys(image for image in images if image))
    assert [min(shard_of[image]) for image in in_turn] == [number % count for number in range(len(in_turn))]


@given(images=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2))).map(sorted), count=st.integers(1, 4))
def test_groups_of_an_image_are_those_of_the_whole(images: Sequence[tuple[str, int]], count: int) -> None:
    """What `--share union` answers together is the same with shards, bad rows included."""
    named = [image for letter, n_bad in images for image in (letter, *[None] * n_bad)]
    rows = [row(number, image) for number, image in enumerate([None, *named])]
    whole = [[one.id for one in group] for group in by_image(rows, lambda one: one)]
    parts = [by_image(rows_of_shard(rows, index, count), lambda one: one) for index in range(count)]
    assert sorted([one.id for one in group] for part in parts for group in part) == sorted(whole)


def test_the_resolved_path_is_the_image(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    images = ["a.jpg", "b.jpg", "link/a.jpg", "x/../a.jpg", str(tmp_path / "a.jpg"), "c.jpg"]
    lines = [orjson.dumps({"id": n, "image": image, "expression": "dog"}) for n, image in enumerate(images)]
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(lines))
    assert [[one.id for one in open_source([str(tmp_path / "f.jsonl")], shard=(index, 2))] for index in (0, 1)] == [
        [0, 2, 3, 4, 5],
        [1],
    ]


def test_a_set_of_ids_knows_what_it_has() -> None:
    seen = Ids()
    assert all(seen.add(number) for number in range(5000))
    assert 17 in seen and 4999 in seen and 5000 not in seen and "17" not in seen
