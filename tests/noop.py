"""The real command line with an engine that answers without a model and without torch.

Run it with ``python -m tests.noop ground ...``. Environment variables make it fail, or kill it at a given point:

    NOOP_DIE=write:3      kill it before the third write
    NOOP_DIE=torn:3       kill it after half of the third write
    NOOP_DIE=sync:2       kill it between a write and the second sync
    NOOP_DIE=replace:1    kill it before the first rename
    NOOP_DIE=row:5        kill it before the fifth answer, in the middle of a batch
    NOOP_DELAY=0.01       each batch takes this many seconds
    NOOP_LOADING=30       it says "loading", and takes this many seconds for it
    NOOP_FAIL=red         rows whose expression contains this word fail
    NOOP_PEAK=FILE        at the end, write the peak memory in KiB to this file (Linux)
    NOOP_CPU=FILE         at the end, write the CPU time of this process in seconds to this file
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplayer_cli.app import main
from deeplayer_cli.errors import RowError
from deeplayer_cli.images.loader import LoadedRequest
from deeplayer_cli.runtime.prepare import PreparedRun
from deeplayer_cli.schema import BadRequest, Prediction, Request
from deeplayer_cli.sinks import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SIDE = 100


def answer(request: Request) -> Prediction:
    """Answer with a box that depends on the image and the expression only."""
    numbers = hashlib.blake2b(f"{request.image}\0{request.expression}".encode(), digest_size=4).digest()
    text = "[[{}, {}, {}, {}]]".format(*(3 * number for number in numbers))
    return Prediction.answered(
        request, text, (SIDE, SIDE), score=0.5, visual_tokens=16, kept_tokens=4, method="none", layer=2
    )


class Noop:
    """An answerer without a model; see `deeplayer_cli.runtime.run.Answerer`."""

    answers_whole_images = False
    seconds_saved = 0.0

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._answered = 0

    def windows(
        self, rows: Iterable[Request | BadRequest], *, stopped: Callable[[], bool]
    ) -> Iterator[list[LoadedRequest]]:
        rows = iter(rows)
        while not stopped() and (batch := list(islice(rows, self._batch_size))):
            yield [LoadedRequest(row, None, row.error if isinstance(row, BadRequest) else None) for row in batch]

    def answer_window(self, window: Sequence[LoadedRequest], stopped: Callable[[], bool]) -> Iterator[list[Prediction]]:
        del stopped
        if delay := os.environ.get("NOOP_DELAY"):
            time.sleep(float(delay))
        for loaded in window:
            self._answered += 1
            _die_at("row", self._answered)
            yield [self._one(loaded.request)]

    def ground(self, rows: Iterable[Request | BadRequest], *, stopped: Callable[[], bool]) -> Iterator[Prediction]:
        for window in self.windows(rows, stopped=stopped):
            for predictions in self.answer_window(window, stopped):
                yield from predictions

    def mean_keep(self, n_visual: int, n_kept: int) -> float:
        del n_visual, n_kept
        return 0.625

    def advice(self) -> None:
        return None

    def profile(self, rows: int, seconds: float) -> Any:
        raise NotImplementedError

    @staticmethod
    def _one(row: Request | BadRequest) -> Prediction:
        failing = os.environ.get("NOOP_FAIL")
        if isinstance(row, BadRequest):
            return Prediction.failed(row, row.error)
        if failing and failing in row.expression:
            return Prediction.failed(row, RowError("noop", f"{row.where}: as told"))
        return answer(row)


def prepare(model: str, *, revision: str | None, dtype: str, device: str, settings: Mapping[str, Any]) -> PreparedRun:
    """Replace `deeplayer_cli.runtime.prepare.prepare`."""
    del revision, dtype, device
    changeless = ("attention", "batch_size", "batch_tokens", "compiled", "profile", "strict", "workers")
    deciding = {"weights": model, **{key: value for key, value in settings.items() if key not in changeless}}

    def load() -> Noop:
        if delay := os.environ.get("NOOP_LOADING"):
            os.write(sys.stderr.fileno(), b"loading\n")
            time.sleep(float(delay))
        return Noop(settings["batch_size"])

    return PreparedRun(deciding, load)


def _die_at(point: str, number: int) -> None:
    if os.environ.get("NOOP_DIE") == f"{point}:{number}":
        os.kill(os.getpid(), signal.SIGKILL)


def _install_plugs() -> None:
    real = {name: getattr(disk, name) for name in ("write", "sync", "replace")}
    count = dict.fromkeys(real, 0)

    def plugged(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count[name] += 1
            _die_at(name, count[name])
            if name == "write" and os.environ.get("NOOP_DIE") == f"torn:{count[name]}":
                descriptor, data = arguments
                os.write(descriptor, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*arguments)

        return call

    for name in real:
        setattr(disk, name, plugged(name))


if __name__ == "__main__":
    _install_plugs()
    try:
        main(prepare)
    finally:
        assert "torch" not in sys.modules
        if cpu := os.environ.get("NOOP_CPU"):
            Path(cpu).write_text(str(time.process_time()))
        if peak := os.environ.get("NOOP_PEAK"):
            status = Path("/proc/self/status").read_text()  # getrusage includes the parent's memory before exec
            Path(peak).write_text(status.partition("VmHWM:")[2].split()[0])
