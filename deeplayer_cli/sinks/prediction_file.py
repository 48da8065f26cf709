"""A prediction file that a crash cannot spoil, and that a later run can continue."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.schema import Prediction
from deeplayer_cli.schema.row_ids import AnsweredIndex, id_hash, question_hash
from deeplayer_cli.sinks import disk
from deeplayer_cli.sinks.reading import read_predictions
from deeplayer_cli.sinks.run_record import load_record, record_path, refuse_other_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from deeplayer_cli.schema import BadRequest, Id, Request
    from deeplayer_cli.sinks.run_record import RunRecord

SYNC_ROWS, SYNC_SECONDS = 64, 2.0
"""What a power cut can cost at most: rows, or seconds of writing, since the last one that surely reached the disk."""

_LONGEST_LINE = 2**26


class ResumeMode(Enum):
    """What may be done with a file that holds rows already."""

    NEW = "nothing"
    RESUME = "continue it"
    RETRY = "continue it, and answer its error rows again"
    OVERWRITE = "empty it, once there is a first row to write"


class PredictionFile:
    """Appends predictions, whole lines only, and lets nobody else write meanwhile.

    A process that dies at any moment leaves a file of whole lines with at most one torn line behind them, which the
    next resumed run cuts off. Rows answered again replace their error rows all at once, when the file is closed.

    Args:
        path: the file, made if missing; a regular file or nothing.
        record: of this run; written beside the file before the first row.
        start: what to do if the file holds rows.

    Raises:
        DeeplayerError: the file may not be touched, belongs to another run or is being written by one, or the system
            refuses.
    """

    def __init__(self, path: Path, record: RunRecord, start: ResumeMode) -> None:
        self.path, self.record = path, record
        self.answered = AnsweredIndex()
        self._again: _RetriedRows | None = None
        self._outdated = False  # what the file holds is to be replaced
        self._unsynced, self._synced_at = 0, time.monotonic()
        with writing(str(path)):
            self._descriptor = _open_locked(path)
            try:
                self._size = os.fstat(self._descriptor).st_size
                self._prepare(start)
            except BaseException:
                os.close(self._descriptor)
                raise

    def _prepare(self, start: ResumeMode) -> None:
        if start is ResumeMode.OVERWRITE:
            self._outdated = True  # but still there for whoever's run ends before its first row
            return
        if self._size:
            old = load_record(self.path)
            if start is ResumeMode.NEW:
                same = old is not None and old.fingerprint == self.record.fingerprint
                hint = "--resume continues its run, " if same else ""
                raise DeeplayerError(f"{self.path} is not empty: {hint}--overwrite replaces it, or write elsewhere")
            if old is None:
                raise DeeplayerError(
                    f"{self.path} cannot be resumed: without {record_path(self.path).name} nobody knows its settings"
                )
            refuse_other_settings(self.path, old, self.record)
            rows = _WholeRows(self.path)
            self.answered = AnsweredIndex(rows)
            _refuse_repeated(self.path, self.answered)
            self._cut(rows.end)
        _RetriedRows.clear(self.path)  # of a run that was killed
        if start is ResumeMode.RETRY and self.answered.n_errors:
            self._again = _RetriedRows(self.path)
        self.record.save(self.path)

    def _replace(self) -> None:
        self._outdated = False
        self._cut(0)
        _RetriedRows.clear(self.path)
        self.record.save(self.path)

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(str(self.path)):
            try:
                if self._outdated and kind is None:
                    self._replace()
                disk.sync(self._descriptor)
                if self._again is not None:
                    self._again.close(keep=kind is None or kind is KeyboardInterrupt)
            finally:
                os.close(self._descriptor)

    def unanswered(self, row: Request | BadRequest) -> bool:
        """Whether a row is still to be answered.

        Raises:
            DeeplayerError: the file holds an answer to another question under this row's id.
        """
        known = self.answered.question(row.id)
        if known not in (None, question_hash(row)):
            raise DeeplayerError(
                f"{row.where}: {self.path} answers id {row.id!r} for another image or expression: "
                "the input has changed since; write to another file"
            )
        return self.lacks(row.id)

    def lacks(self, row_id: Id) -> bool:
        """Whether the row with this id is still to be answered."""
        again = self._again is not None and self.answered.failed(row_id)
        return again or self.answered.question(row_id) is None

    def write(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            DeeplayerError: the system refuses, for example because the disk is full; the file stays whole.
        """
        line = prediction.to_json()
        with writing(str(self.path)):
            if self._outdated:
                self._replace()
            if self._again is not None and self.answered.failed(prediction.id):
                self._again.write(id_hash(prediction.id), line)
            else:
                self._append(line)

    def predictions(self) -> Iterator[Prediction]:
        """All rows of the file."""
        return read_predictions(self.path)

    def finish(self, counts: Mapping[str, int], profile: Mapping[str, object] | None = None) -> None:
        """Note in the record that the run has finished; a profile of an earlier run stays if there is no new one."""
        dataclasses.replace(self.record, counts=counts, profile=profile or self.record.profile).save(self.path)

    def _append(self, line: bytes) -> None:
        try:
            write_all(self._descriptor, line)
        except OSError:
            with suppress(OSError):  # else the torn line stays, and the next run cuts it off
                self._cut(self._size)
            raise
        self._size += len(line)
        self._unsynced += 1
        if self._unsynced >= SYNC_ROWS or time.monotonic() - self._synced_at >= SYNC_SECONDS:
            disk.sync(self._descriptor)
            self._unsynced, self._synced_at = 0, time.monotonic()

    def _cut(self, size: int) -> None:
        if os.fstat(self._descriptor).st_size != size:
            disk.truncate(self._descriptor, size)
        self._size = size


class _RetriedRows:
    """Rows answered again, kept aside until they can take the place of the old ones all at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows, self._whole = self._aside(path)
        self._places: dict[int, tuple[int, int]] = {}
        self._descriptor = os.open(self._rows, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._size = 0

    @classmethod
    def clear(cls, path: Path) -> None:
        """Remove what was kept aside for ``path``."""
        for aside in cls._aside(path):
            aside.unlink(missing_ok=True)

    @staticmethod
    def _aside(path: Path) -> tuple[Path, Path]:
        """Where the rows answered again go, and the file with them in their places."""
        return path.with_name(f"{path.name}.again"), path.with_name(f"{path.name}.partial")

    def write(self, key: int, line: bytes) -> None:
        write_all(self._descriptor, line)
        self._places[key] = (self._size, len(line))
        self._size += len(line)

    def close(self, *, keep: bool) -> None:
        try:
            if keep and self._places:
                self._replace()
        finally:
            os.close(self._descriptor)
            self.clear(self._path)

    def _replace(self) -> None:
        whole = _open_locked(self._whole)
        try:
            with self._path.open("rb") as old:
                for line in old:
                    place = self._places.get(id_hash(Prediction.from_json(line).id))
                    write_all(whole, line if place is None else os.pread(self._descriptor, place[1], place[0]))
            disk.sync(whole)
            disk.replace(self._whole, self._path)
        finally:
            os.close(whole)


class _WholeRows:
    """The rows of a file up to a torn tail; ``end`` is where they end, once they have been read.

    Raises:
        DeeplayerError: a line in the middle is no prediction; that is no trace of a crash.
    """

    def __init__(self, path: Path) -> None:
        self.end = 0
        self._path = path

    def __iter__(self) -> Iterator[Prediction]:
        torn = None
        with self._path.open("rb") as stream:
            number = 0
            while line := stream.readline(_LONGEST_LINE):
                number += 1
                try:
                    row = Prediction.from_json(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    torn = torn or number
                    continue
                if torn:
                    raise DeeplayerError(
                        f"{self._path}:{torn} is no prediction, and predictions follow it: delete that line to resume"
                    )
                self.end += len(line)
                yield row


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``."""
    rest = memoryview(data)
    while rest:
        rest = rest[disk.write(descriptor, rest) :]


def _open_locked(path: Path) -> int:
    """Open a file for appending, as the only one who writes it; the system lifts the lock when the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DeeplayerError(f"{path} is being written by another run: wait for it, or write elsewhere") from error
    return descriptor


def _refuse_repeated(path: Path, answered: AnsweredIndex) -> None:
    repeated = answered.repeated()
    if repeated:
        row_id = next(row.id for row in _WholeRows(path) if id_hash(row.id) in repeated)
        raise DeeplayerError(f"{path} holds id {row_id!r} twice: no single run wrote it, so none can continue it")
