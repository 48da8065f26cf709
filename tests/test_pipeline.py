"""Reading ahead: order, sharing, bounds, and an end that leaves no thread behind."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from deeplayer_cli.imaging import Tiling, open_image
from deeplayer_cli.pipeline import read_ahead
from deeplayer_cli.schema import parse_request

TILING = Tiling(tile_size=8)


@pytest.fixture
def rows(tmp_path):
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")

    def row(index):
        name = "missing" if index % 10 == 9 else index // 3 % 6
        return parse_request({"image": f"{name}.png", "expression": "x"}, f"row {index}", index, tmp_path)

    return [row(index) for index in range(40)]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 2), (4, 100)])
def test_jobs_come_in_order_with_their_own_image(rows, workers, ahead):
    jobs = list(read_ahead(rows, TILING, workers=workers, ahead=ahead))
    assert [job.request.id for job in jobs] == list(range(40))
    for job in jobs:
        if job.request.id % 10 == 9:
            assert job.error.kind == "image_missing"
        else:
            assert job.image.tiles[0, 0, 0, 0] == int(job.request.path.stem)


def test_nearby_rows_share_one_image(rows):
    opened = []
    jobs = list(
        read_ahead(rows[:9], TILING, read=lambda path: opened.append(path) or open_image(path), workers=2, ahead=4)
    )
    assert len(opened) == 3
    assert jobs[0].image is jobs[1].image is jobs[2].image


def test_no_more_than_ahead_rows_are_taken_before_they_are_needed(rows):
    taken = []
    jobs = read_ahead((taken.append(row.id) or row for row in rows), TILING, workers=2, ahead=5)
    next(jobs)
    assert taken == [0, 1, 2, 3, 4]
    next(jobs)
    assert len(taken) == 6
    jobs.close()


def test_closing_early_leaves_no_worker(rows):
    jobs = read_ahead(rows, TILING, workers=3, ahead=30)
    next(jobs)
    jobs.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deeplayer-image")]
