"""Reading ahead: order, sharing, bounds, and an end that leaves no thread behind."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.imaging import Tiling, open_image
from deeplayer_cli.pipeline import by_image, read_ahead
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


@pytest.mark.parametrize(("workers", "window"), [(1, 1), (3, 2), (4, 100)])
def test_jobs_come_in_order_with_their_own_image(rows, workers, window):
    windows = list(read_ahead(rows, TILING, workers=workers, window=window))
    assert [len(jobs) for jobs in windows] == [window] * (40 // window) + [40 % window] * (40 % window > 0)
    jobs = [job for jobs in windows for job in jobs]
    assert [job.request.id for job in jobs] == list(range(40))
    for job in jobs:
        if job.request.id % 10 == 9:
            assert job.error.kind == "image_missing"
        else:
            assert job.image.tiles[0, 0, 0, 0] == int(job.request.path.stem)


def test_nearby_rows_share_one_image(rows):
    opened = []
    windows = read_ahead(
        rows[:9], TILING, read=lambda path: opened.append(path) or open_image(path), workers=2, window=2
    )
    jobs = [job for jobs in windows for job in jobs]
    assert len(opened) == 3
    assert jobs[0].image is jobs[1].image is jobs[2].image


def test_no_more_than_a_window_is_read_ahead_of_the_one_in_hand(rows):
    taken = []
    windows = read_ahead((taken.append(row.id) or row for row in rows), TILING, workers=2, window=3)
    for number in (1, 2):
        assert len(next(windows)) == 3
        assert taken == list(range(3 * number + 3 + 2))
    windows.close()


def test_what_is_there_does_not_wait_for_what_is_not(rows):
    """Rows that come in bursts, as from a pipe, whose writer may be waiting for their answers."""
    arrived, taken = 2, []
    pipe = (taken.append(row.id) or row for row in rows)
    windows = read_ahead(pipe, TILING, workers=1, window=3, ready=lambda: len(taken) < arrived)
    bursts = []
    while len(bursts) < 3:
        bursts.append([job.request.id for job in next(windows)])
        assert len(taken) == arrived
        arrived += 1
    assert bursts == [[0, 1], [2], [3]]
    windows.close()


def test_closing_early_leaves_no_worker(rows):
    jobs = read_ahead(rows, TILING, workers=3, window=30)
    next(jobs)
    jobs.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deeplayer-image")]


def test_neighbours_about_one_image_are_taken_together(rows, tmp_path):
    bad = parse_request({"image": "0.png"}, "row 99", 99, tmp_path)
    items = [*rows[:3], bad, *rows[3:9]]
    groups = list(by_image(items, lambda row: row))
    assert [[row.id for row in group] for group in groups] == [[0, 1, 2, 99], [3, 4, 5], [6, 7, 8]]
    assert list(by_image([], lambda row: row)) == []


def test_a_folder_whose_name_is_not_text_is_a_folder(rows, tmp_path):
    named = [replace(row, path=tmp_path / os.fsdecode(b"\xff") / row.path.name) for row in rows[:6]]
    assert [len(group) for group in by_image(named, lambda row: row)] == [3, 3]


def test_an_image_that_comes_back_is_refused(rows):
    with pytest.raises(DeeplayerError, match=r"row 2: 0\.png came up before, .* sort them by image"):
        list(by_image([rows[0], rows[3], rows[2]], lambda row: row))
