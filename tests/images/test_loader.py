"""Reading ahead: order, sharing, bounds, and an end that leaves no thread behind."""

from __future__ import annotations

import os
import pickle
import threading

import pytest
from PIL import Image

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.files import content_digest
from deeplayer_cli.images.loader import ImageLoader, WorkerTimes, open_in_time, read_ahead
from deeplayer_cli.models.internvl.tiling import Tiling, tile_grid, tile_image
from deeplayer_cli.schema import parse_request

TILING = Tiling(tile_size=8)


def loader(decode=open_image):
    return ImageLoader(decode, lambda image: (tile_image(image, TILING), tile_grid(image.size, TILING)), WorkerTimes())


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
    windows = list(read_ahead(rows, loader(), workers=workers, window=window))
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
    load = loader(lambda path: opened.append(path) or open_image(path))
    windows = read_ahead(rows[:9], load, workers=2, window=2)
    jobs = [job for jobs in windows for job in jobs]
    assert len(opened) == 3
    assert jobs[0].image is jobs[1].image is jobs[2].image


def test_no_more_than_a_window_is_read_ahead_of_the_one_in_hand(rows):
    taken = []
    windows = read_ahead((taken.append(row.id) or row for row in rows), loader(), workers=2, window=3)
    for number in (1, 2):
        assert len(next(windows)) == 3
        assert taken == list(range(3 * number + 3 + 2))
    windows.close()


def test_what_is_there_does_not_wait_for_what_is_not(rows):
    """Rows that come in bursts, as from a pipe, whose writer may be waiting for their answers."""
    arrived, taken = 2, []
    pipe = (taken.append(row.id) or row for row in rows)
    windows = read_ahead(pipe, loader(), workers=1, window=3, ready=lambda: len(taken) < arrived)
    bursts = []
    while len(bursts) < 3:
        bursts.append([job.request.id for job in next(windows)])
        assert len(taken) == arrived
        arrived += 1
    assert bursts == [[0, 1], [2], [3]]
    windows.close()


def image_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("deeplayer-image")]


def test_closing_early_leaves_no_worker(rows):
    jobs = read_ahead(rows, loader(), workers=3, window=30)
    next(jobs)
    threads = image_threads()
    assert len(threads) == 3
    jobs.close()
    for thread in threads:
        thread.join(30)
    assert not image_threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_images_that_never_end_are_error_rows_and_hold_up_no_other(rows, workers):
    """Every decode of two of the six images blocks until the test is over."""
    over = threading.Event()

    def decode(path):
        if path.stem in ("1", "4"):
            over.wait()
        return open_image(path)

    try:
        windows = read_ahead(rows[:20], loader(decode), workers=workers, window=4, timeout=1)
        jobs = [job for window in windows for job in window]
        assert [job.request.id for job in jobs] == list(range(20))
        for job in jobs:
            if job.request.path.stem in ("1", "4"):
                assert job.error.kind == "image_timeout"
                assert job.error.message.startswith(f"row {job.request.id}: {job.request.path} takes longer than 1 s")
                assert "--image-timeout" in job.error.message
            elif job.request.path.stem != "missing":
                assert job.image.tiles[0, 0, 0, 0] == int(job.request.path.stem)
        assert all(thread.daemon for thread in image_threads()), "a thread that never returns would hold up the exit"
    finally:
        over.set()
    for thread in image_threads():
        thread.join(30)
    assert not image_threads(), "a thread that has been replaced goes on working"


def test_rows_that_name_a_stuck_image_wait_for_it_once(rows):
    over, calls = threading.Event(), []
    try:
        windows = read_ahead(
            rows[:3], loader(lambda path: calls.append(path) or over.wait()), workers=1, window=1, timeout=0.05
        )
        assert [job.error.kind for window in windows for job in window] == ["image_timeout"] * 3
        assert len(calls) == 1
    finally:
        over.set()


def test_a_call_that_fails_by_mistake_is_not_hidden(rows):
    def decode(path):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(read_ahead(rows, loader(decode), workers=2, window=2))


def test_an_image_that_vanishes_after_it_was_decoded_is_an_error_row(rows):
    def decode(path):
        image = open_image(path)
        path.unlink()
        return image

    (window,) = read_ahead(rows[:1], loader(decode), workers=1, window=1)
    assert window[0].error.kind == "image_missing"


def test_memory_that_runs_short_while_tiling_is_an_error_row(rows):
    def tile(image):
        raise MemoryError

    (window,) = read_ahead(rows[:1], ImageLoader(open_image, tile, WorkerTimes()), workers=1, window=1)
    assert window[0].error.kind == "image_too_large"


def test_an_image_is_known_by_its_file(rows, tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    load = loader()
    one, again, linked, other = (
        load(tmp_path / name) for name in ("0.png", "../" + tmp_path.name + "/0.png", "link.png", "1.png")
    )
    assert one.id == again.id == linked.id != other.id
    assert pickle.loads(pickle.dumps(one)).id == one.id
    os.utime(tmp_path / "0.png", ns=(1, 1))
    assert load(tmp_path / "0.png").id != one.id


def test_an_image_is_told_apart_by_its_content(rows, tmp_path):
    load = loader()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    zero, one, other = (load(tmp_path / name).digest for name in ("0.png", "1.png", "other/0.png"))
    assert zero != one == other and len(zero) == 16


@pytest.mark.parametrize("stated", [{"width": 9, "height": 9}, {"box": [100, 100, 101, 101]}])
def test_a_row_that_does_not_fit_its_image_has_it(rows, tmp_path, stated):
    row = parse_request({"image": "0.png", "expression": "x", **stated}, "row 1", 1, tmp_path)
    ((loaded,),) = read_ahead([row], loader(), workers=1, window=1)
    assert loaded.error is not None and loaded.image.digest == loader()(tmp_path / "0.png").digest


def test_an_error_survives_the_way_from_another_process(rows):
    bad = next(row for window in read_ahead(rows[9:10], loader(), workers=1, window=1) for row in window)
    back = pickle.loads(pickle.dumps(bad))
    assert (back.error.kind, back.error.message) == (bad.error.kind, bad.error.message) and str(
        back.error
    ) == bad.error.message


def test_one_image_is_opened_in_time(tmp_path, monkeypatch):
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    assert open_in_time(image).size == (8, 8)
    with pytest.raises(RowError, match="does not exist"):
        open_in_time(tmp_path / "absent.png")
    over = threading.Event()
    monkeypatch.setattr("deeplayer_cli.images.loader.open_image", lambda _: over.wait())
    with pytest.raises(RowError, match=r"takes longer than 0\.05 seconds") as refused:
        open_in_time(image, 0.05)
    assert refused.value.kind == "image_timeout"
    over.set()


def test_a_loop_of_links_is_told_in_words(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(RowError, match=r"loop.png cannot be read: Too many levels of symbolic links$"):
        content_digest(tmp_path / "loop.png")


def test_a_path_with_backslashes_gets_the_way_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").touch()
    with pytest.raises(RowError, match=r"a\\b.png does not exist, but \S+/a/b.png does: write / between folders"):
        content_digest(tmp_path / r"a\b.png")
    (tmp_path / "c.png").symlink_to("gone.png")
    for name in (r"a\c.png", "c.png"):
        with pytest.raises(RowError, match=r"does not exist$"):
            content_digest(tmp_path / name)
