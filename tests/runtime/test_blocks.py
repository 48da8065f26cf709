"""Blocks of rows for the workers of a cluster, and what can be said about a cluster without one."""

from __future__ import annotations

import logging
import sys
from itertools import chain, groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.blocks import blocks_of, collected_remarks, read_images
from deeplayer_cli.runtime.ray_cluster import RayResources, connected, socket_folder
from deeplayer_cli.schema import BadRequest, parse_request
from deeplayer_cli.sources import ArrivingRows


def rows_of(images):
    rows = ({"image": f"{name}.png", "expression": "x"} if name else {} for name in images)
    return [parse_request(row, f"rows:{number}", number, Path("root")) for number, row in enumerate(rows)]


@given(st.lists(st.sampled_from(["", "a", "b", "c"])), st.integers(1, 5), st.booleans())
def test_blocks_keep_the_order_and_whole_images(images, size, whole_images):
    rows = rows_of(images)
    blocks = list(blocks_of(rows, size, whole_images=whole_images, shipped=False))
    assert list(chain.from_iterable(blocks)) == rows and all(blocks)
    runs = [len(list(run)) for _, run in groupby(name for name in images if name)]
    longest = size - 1 + max(runs, default=0) + images.count("")  # bad rows go with the rows before them
    assert all(len(block) <= (longest if whole_images else 8 * size) for block in blocks)
    for before, after in pairwise(blocks):
        assert len(before) >= size
        known = [row.path for row in before if not isinstance(row, BadRequest)]
        is_cut = known and not isinstance(after[0], BadRequest) and after[0].path == known[-1]
        assert not is_cut or (len(before) == 8 * size and not whole_images)


def test_rows_that_have_come_do_not_wait():
    arriving = ArrivingRows(iter(rows_of("aab")))
    blocks = blocks_of(arriving, 100, whole_images=False, shipped=False)
    assert arriving.wait(10)
    got = []
    while len(got) < 3:
        got += next(blocks)
    assert [row.id for row in got] == [0, 1, 2]
    assert list(chain.from_iterable(blocks)) == []


def test_large_images_end_a_block(tmp_path):
    for name in "abc":
        with (tmp_path / f"{name}.png").open("wb") as file:
            file.truncate(9 * 2**20)
    rows = [parse_request({"image": f"{n}.png", "expression": "x"}, n, n, tmp_path) for n in "aabbc"]
    assert [len(block) for block in blocks_of(rows, 100, whole_images=True, shipped=True)] == [4, 1]
    assert [len(block) for block in blocks_of(rows, 100, whole_images=True, shipped=False)] == [5]


def test_an_image_is_read_once(tmp_path):
    (tmp_path / "a.png").write_bytes(b"content")
    rows = [parse_request({"image": f"{n}.png", "expression": "x"}, "r:1", n, tmp_path, hint="look") for n in "aab"]
    read, images = read_images(rows)
    assert images == {tmp_path / "a.png": b"content"} and read[:2] == rows[:2]
    assert isinstance(read[2], BadRequest) and str(read[2].error) == f"r:1: {tmp_path}/b.png does not exist; look"


def test_remarks_are_collected():
    logger = logging.getLogger("deeplayer")
    with collected_remarks(logger) as remarks:
        logger.warning("%d rows", 3)
    logger.warning("later")
    assert remarks == [(logging.WARNING, "3 rows")]


def test_resources_follow_the_cluster():
    gpus = {"CPU": 16.0, "GPU": 8.0}
    assert RayResources().on(gpus) == RayResources(8, 1.0, 1.0)
    assert RayResources(gpus=0.5).on(gpus).n_workers == 16
    assert RayResources(3, cpus=4).on(gpus) == RayResources(3, 1.0, 4)
    assert RayResources().on({"CPU": 2.0}) == RayResources(1, 0.0, 1.0)
    for wrong in ({"gpus": 1.5}, {"cpus": 2.5}, {"gpus": float("nan")}, {"cpus": float("inf")}):
        with pytest.raises(DeeplayerError, match="-per-worker must be a whole number, or below 1"):
            RayResources(**wrong)


def test_without_ray_or_without_a_cluster(monkeypatch):
    with monkeypatch.context() as without, pytest.raises(DeeplayerError, match=r"pip install 'deeplayer\[ray\]'"):
        without.setitem(sys.modules, "ray", None)
        with connected("local"):
            pass
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    for address in ("localhost:1", "nowhere", "", "ray://localhost:1"):
        with pytest.raises(DeeplayerError, match="--ray must be local, auto or HOST:PORT"), connected(address):
            pass


def test_ray_gets_a_folder_with_a_short_path(monkeypatch, tmp_path):
    base = tmp_path / ("long" * 10)
    base.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(base))
    folder = Path(socket_folder())
    folder.rmdir()
    assert folder.parent == Path("/tmp")
