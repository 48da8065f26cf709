"""The scheduler: plain data in, plain data out."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.runtime.batching import Batching
from deeplayer_cli.runtime.scheduler import Scheduler, Task

IMAGES = [SimpleNamespace(id=number, tiles=[0] * tiles) for number, tiles in enumerate((1, 1, 3, 3, 7))]


def task(index, image, n_expression=4):
    n_visual = 10 * len(IMAGES[image].tiles)
    return Task(
        index, None, IMAGES[image], range(n_expression), IMAGES[image].id, n_visual, 20 + n_visual + n_expression
    )


def tasks_of(images):
    return [task(index, image) for index, image in enumerate(images)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 8), st.integers(1, 400))
def test_every_task_comes_once_within_the_limits(images, rows, tokens):
    scheduler, left, cached = Scheduler(Batching(rows, tokens), whole_images=False), tasks_of(images), set()
    done = []
    while left:
        output = scheduler.next_batch(left, cached)
        batch = output.tasks
        assert batch[0] in left and {one.prefix_key for one in batch} <= output.images.keys()
        assert len({len(image.tiles) for image in output.images.values()}) == 1
        longest = max(one.prompt_tokens for one in batch)
        assert len(batch) == 1 or (len(batch) <= rows and len(batch) * longest <= tokens)
        cached = set(output.images)
        done += [one.index for one in batch]
        left = [one for one in left if one.index not in done]
    assert sorted(done) == list(range(len(images)))


def test_what_is_cached_comes_first():
    tasks = tasks_of([0, 2, 3, 1])
    output = Scheduler(Batching(8, 10_000), whole_images=False).next_batch(tasks, {3, 1})
    assert [one.index for one in output.tasks] == [2, 3] and set(output.images) == {3, 1}


def test_lack_of_memory_halves_batches_down_to_one():
    scheduler, tasks = Scheduler(Batching(8, 10_000), whole_images=False), tasks_of([0] * 8)
    sizes = []
    while True:
        batch = scheduler.next_batch(tasks, ()).tasks
        sizes.append(len(batch))
        if failure := scheduler.retreat(batch):
            break
    assert sizes == [8, 4, 2, 1]
    assert failure.tasks == tasks[:1] and "even alone" in failure.reason


def test_whole_images_stay_whole():
    scheduler, tasks = Scheduler(Batching(2, 100), whole_images=True), tasks_of([0] * 5)
    assert scheduler.next_batch(tasks, ()).tasks == tasks
    assert scheduler.retreat(tasks).tasks == tasks
    assert "even alone" in scheduler.retreat(tasks[:1]).reason
