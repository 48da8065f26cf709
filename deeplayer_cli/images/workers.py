"""Threads that may get stuck without holding up the run: they are daemons, and stuck ones are replaced."""

from __future__ import annotations

import time
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class JobTimeoutError(Exception):
    """A job took too long; its thread may never return."""


class Job(Generic[T]):
    """A call that a worker makes, once."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._begun, self._ended, self._lock = Event(), Event(), Lock()
        self._began = 0.0
        self._given_up = False
        self._error: BaseException | None = None
        self._result: T | None = None

    def run(self) -> bool:
        """Make the call; return false if the job was given up before it ended."""
        self._began = time.monotonic()
        self._begun.set()
        try:
            self._result = self._call()
        except BaseException as error:  # raised by `result`
            self._error = error
        with self._lock:
            self._ended.set()
            return not self._given_up

    def wait(self, seconds: float) -> bool:
        """Wait until the job has ended; return false if it has not, so many seconds after it began."""
        self._begun.wait()
        return self._ended.wait(max(0.0, self._began + seconds - time.monotonic()))

    def give_up(self) -> bool:
        """Give up a job that has not ended; return whether this call was the one that did."""
        with self._lock:
            first = not self._given_up and not self._ended.is_set()
            self._given_up = self._given_up or first
            return first

    def result(self) -> T:
        """Return the result of the call, after the job has ended or was given up.

        Raises:
            JobTimeoutError: the job was given up.
            BaseException: what the call raised.
        """
        if self._given_up:
            raise JobTimeoutError
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


class Workers(Generic[T]):
    """A number of threads that make calls, in the order in which they were submitted.

    Args:
        count: of threads.
        timeout: seconds after which a job is given up, and its thread replaced.
    """

    def __init__(self, count: int, timeout: float) -> None:
        self._timeout = timeout
        self._jobs: SimpleQueue[Job[T] | None] = SimpleQueue()
        self._closed = False
        self._n_hired = 0
        for _ in range(count):
            self._hire()

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Let a worker make a call."""
        job = Job(call)
        self._jobs.put(job)
        return job

    def result(self, job: Job[T]) -> T:
        """Wait for a job that was submitted here. Jobs must be waited for in the order in which they were submitted.

        So no earlier job holds a worker when this one is waited for, and it begins.

        Raises:
            JobTimeoutError: the job took longer than the timeout.
            BaseException: what the call raised.
        """
        if not job.wait(self._timeout) and job.give_up():
            self._hire()
        return job.result()

    def close(self) -> None:
        """Let the threads end after their current jobs."""
        self._closed = True
        for _ in range(self._n_hired):
            self._jobs.put(None)

    def _hire(self) -> None:
        self._n_hired += 1
        Thread(target=self._work, name=f"deeplayer-image-{self._n_hired}", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            if not job.run():
                return  # another thread has taken this one's place
            del job  # a waiting thread must not keep an image
