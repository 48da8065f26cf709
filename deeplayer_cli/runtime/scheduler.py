"""The scheduler: decides which rows go through the model together. `ModelRunner` runs its batches."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Mapping, Sequence

    from deeplayer_cli.images.loader import LoadedImage
    from deeplayer_cli.runtime.batching import Batching
    from deeplayer_cli.schema import Request

logger = logging.getLogger("deeplayer")


@dataclass(frozen=True)
class Task:
    """A request that is ready for the model.

    Attributes:
        index: its position in the window.
        request: the request.
        image: its image.
        expression_ids: token ids of the expression.
        prefix_key: rows with the same key share a prefix.
        n_visual: number of visual tokens of the image.
        prompt_tokens: number of tokens of the whole prompt.
    """

    index: int
    request: Request
    image: LoadedImage
    expression_ids: Sequence[int]
    prefix_key: Hashable
    n_visual: int
    prompt_tokens: int


@dataclass(frozen=True)
class SchedulerOutput:
    """The next batch to run.

    Attributes:
        tasks: the tasks of the batch.
        images: the images whose prefixes must be in the cache, by prefix key; all have the same number of tiles.
    """

    tasks: Sequence[Task]
    images: Mapping[Hashable, LoadedImage]


@dataclass(frozen=True)
class Failure:
    """Tasks that do not fit into memory.

    Attributes:
        tasks: the failed tasks.
        reason: the end of the error message.
    """

    tasks: Sequence[Task]
    reason: str


class Scheduler:
    """Makes batches of tasks that share prefixes, and smaller batches after running out of memory.

    Args:
        batching: the limits of a batch.
        whole_images: all rows of an image go in one batch, whatever its limits.
    """

    def __init__(self, batching: Batching, *, whole_images: bool) -> None:
        self.batching = batching
        self._whole_images = whole_images

    def next_batch(self, tasks: Sequence[Task], cached: Container[Hashable]) -> SchedulerOutput:
        """Choose the next batch: tasks with a cached prefix, or else the first task and others of its tile count.

        Args:
            tasks: the tasks without an answer; at least one.
            cached: keys of the images in the cached prefix.
        """
        images = {task.prefix_key: task.image for task in tasks if task.prefix_key in cached}
        images = images or self._next_images(tasks)
        batch = [task for task in tasks if task.prefix_key in images]
        if not self._whole_images:
            batch = batch[: self.batching.fitting(task.prompt_tokens for task in batch)]
        return SchedulerOutput(batch, images)

    def retreat(self, batch: Sequence[Task]) -> Failure | None:
        """After a batch ran out of memory: make the next batches smaller, or return the tasks that fail."""
        if self._whole_images and len(batch) > 1:
            return Failure(batch, "with all expressions about its image: use --share each")
        most = 1 if self._whole_images else self.batching.count(batch[0].prompt_tokens)
        if most == 1:
            return Failure(batch[:1], "even alone: use a smaller --max-tiles or --max-new-tokens")
        logger.warning("out of memory with %d prompts at once: continuing with %d", most, most // 2)
        self.batching = self.batching.halved(batch[0].prompt_tokens)
        return None

    def _next_images(self, tasks: Sequence[Task]) -> dict[Hashable, LoadedImage]:
        """Return images of the first task's tile count, as many as prompts fit into a batch."""
        first = tasks[0]
        alike = {task.prefix_key: task.image for task in tasks if len(task.image.tiles) == len(first.image.tiles)}
        return dict(list(alike.items())[: self.batching.count(first.prompt_tokens)])
