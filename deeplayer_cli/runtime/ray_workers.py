"""The workers of a run on a Ray cluster: who answers which block, and what happens when one dies."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.runtime.blocks import Block, BlockAnswers, read_images
from deeplayer_cli.runtime.ray_worker import HELD_BLOCKS
from deeplayer_cli.schema import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deeplayer_cli.runtime.ray_worker import RayWorkerIdentity
    from deeplayer_cli.schema import BadRequest, Request

    _Done = dict[int, tuple[Block, BlockAnswers]]  # by the block's index

logger = logging.getLogger("deeplayer")

_AHEAD = 4
"""Blocks for each worker that are sent, or answered before their turn: rows wait for the slowest worker."""

_MOST_DEATHS = 3
"""A block fails after so many workers died with it; a place stays empty after so many died in a row while loading."""

_POLL_SECONDS = 0.02


@dataclass(eq=False)
class _Worker:
    """A worker, or the one in its place after it died.

    Attributes:
        actor: its handle.
        is_loaded: whether it can answer.
        n_deaths: number of workers in this place that died while they loaded the model, since the last that did not.
    """

    actor: Any
    is_loaded: bool = False
    n_deaths: int = 0


@dataclass(eq=False)
class _Sent:
    """A call of a worker.

    Attributes:
        worker: that was called.
        block: to answer; None: load the model.
    """

    worker: _Worker
    block: Block | None


class RayWorkers:
    """Some workers on a cluster.

    Args:
        ray: connected.
        start: starts a worker, and returns its handle.
        count: number of workers.
    """

    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray, self._start = ray, start
        self._workers = [_Worker(start()) for _ in range(count)]
        self._sent: dict[Any, _Sent] = {}  # by the reference of the result
        self._again: deque[Block] = deque()  # blocks whose worker died
        self._identity: RayWorkerIdentity | None = None
        self._told: Any = None  # what a worker returned that has loaded the model

    def __len__(self) -> int:
        return len(self._workers)

    def identity(self) -> RayWorkerIdentity:
        """Return what the first worker to start would answer with.

        Raises:
            DeeplayerError: it cannot start, or refuses the model or the settings.
        """
        first, _ = self._ray.wait([worker.actor.identity.remote() for worker in self._workers])
        try:
            found: RayWorkerIdentity = self._result(first[0])
        except self._ray.exceptions.RayError as error:
            raise DeeplayerError(f"a Ray worker could not start: {_reason(error)}") from error
        return found

    def load(self, identity: RayWorkerIdentity) -> Any:
        """Load the model in all workers, and wait for the first; return what its `load` returns.

        Args:
            identity: of all workers; others are refused.

        Raises:
            DeeplayerError: a worker refuses, or workers die while they load.
        """
        self._identity = identity
        for worker in self._workers:
            self._load(worker)
        while not any(worker.is_loaded for worker in self._workers):
            self._receive({}, None)
        return self._told

    def answers(
        self, blocks: Iterator[Block], stopped: Callable[[], bool], *, ship_images: bool
    ) -> Iterator[tuple[Block, BlockAnswers]]:
        """Yield blocks with their answers, in order.

        Args:
            blocks: an empty block says that no row has come yet.
            stopped: once it is true, no more blocks are taken, and those that are sent are finished.
            ship_images: read the image files, and send their contents.

        Raises:
            DeeplayerError: a worker refuses to go on, or workers die before they answer anything.
        """
        done: _Done = {}
        n_taken = n_yielded = 0
        is_at_end = False
        while True:
            waits_for_rows = False
            while (worker := self._free()) is not None:
                block = self._again.popleft() if self._again else None
                if block is None:
                    if is_at_end or stopped() or n_taken - n_yielded >= _AHEAD * len(self):
                        break
                    block = next(blocks, None)
                    is_at_end, waits_for_rows = block is None, block is not None and not block.rows
                    if block is None or not block.rows:
                        break
                    block.index, n_taken = n_taken, n_taken + 1
                self._send(worker, block, ship_images=ship_images)
            while n_yielded in done:
                yield done.pop(n_yielded)
                n_yielded += 1
            if n_yielded == n_taken and (is_at_end or stopped()):
                return
            self._receive(done, _POLL_SECONDS if waits_for_rows else None)

    def _free(self) -> _Worker | None:
        """Return the worker that holds the fewest blocks, if it may hold one more.

        A block that a worker died with gets a worker for itself, so that only the block at fault fails.
        """
        held: dict[_Worker, int] = {worker: 0 for worker in self._workers if worker.is_loaded}
        for sent in self._sent.values():
            if sent.block is not None:
                held[sent.worker] += HELD_BLOCKS if sent.block.n_deaths else 1
        worker = min(held, key=held.__getitem__, default=None)
        most = 1 if self._again else HELD_BLOCKS
        return worker if worker is not None and held[worker] < most else None

    def _load(self, worker: _Worker) -> None:
        worker.is_loaded = False
        self._sent[worker.actor.load.remote(self._identity)] = _Sent(worker, None)

    def _send(self, worker: _Worker, block: Block, *, ship_images: bool) -> None:
        rows, images = read_images(block.rows) if ship_images else (block.rows, None)
        self._sent[worker.actor.answer.remote(rows, images, block.settings)] = _Sent(worker, block)

    def _receive(self, done: _Done, timeout: float | None) -> None:
        """Wait for a result, and put it into ``done``; a worker that died is replaced."""
        if not self._sent:
            time.sleep(timeout or _POLL_SECONDS)
            return
        for reference in self._ray.wait(list(self._sent), timeout=timeout)[0]:
            sent = self._sent[reference]
            try:
                result = self._result(reference)
            except self._ray.exceptions.RayError as error:
                self._replace(sent.worker, error, done)
                continue
            del self._sent[reference]
            if sent.block is None:
                sent.worker.is_loaded, sent.worker.n_deaths, self._told = True, 0, result
            else:
                done[sent.block.index] = sent.block, result

    def _result(self, reference: Any) -> Any:
        """Return the result of a call; raise what the worker raised."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DeeplayerError):
                raise DeeplayerError(str(error.cause)) from error
            raise (error.cause or error) from error

    def _replace(self, worker: _Worker, error: Exception, done: _Done) -> None:
        """Start a worker in the place of one that died; others get its blocks."""
        reason = _reason(error)
        lost = [reference for reference, sent in self._sent.items() if sent.worker is worker]
        blocks = [block for reference in lost if (block := self._sent.pop(reference).block) is not None]
        for block in sorted(blocks, key=lambda one: one.index):
            block.n_deaths += 1
            if block.n_deaths < _MOST_DEATHS:
                self._again.append(block)
            else:
                done[block.index] = block, BlockAnswers([_died(row, reason) for row in block.answered_rows])
        with suppress(Exception):  # it may be alive, but out of reach
            self._ray.kill(worker.actor)
        worker.n_deaths += not worker.is_loaded
        if worker.n_deaths == _MOST_DEATHS:
            self._workers.remove(worker)
            if not self._workers:
                raise DeeplayerError(f"{_MOST_DEATHS} Ray workers died while they loaded the model, the last: {reason}")
            logger.warning("the run goes on with fewer Ray workers: %d died while they loaded the model", _MOST_DEATHS)
            return
        logger.warning("a Ray worker died, and another takes its place: %s", reason)
        worker.actor = self._start()
        self._load(worker)


def _died(row: Request | BadRequest, reason: str) -> Prediction:
    message = f"{row.where}: {_MOST_DEATHS} Ray workers died while they answered its block, the last: {reason}"
    return Prediction.failed(row, RowError("worker_died", message))


def _reason(error: Exception) -> str:
    """Return the first line of Ray's message, and the machine that it names."""
    text = str(error).strip()
    machine = re.search(r"^\s*ip: (\S+)$", text, re.MULTILINE)
    first = text.partition("\n")[0].rstrip(".:") or type(error).__name__
    return f"{first} (on {machine[1]})" if machine else first
