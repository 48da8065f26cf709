"""A prediction file that survives a crash, and that a later run can resume."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import stat
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.schema import Prediction
from deeplayer_cli.schema.row_ids import AnsweredIndex, details_hash, id_hash, question_hash
from deeplayer_cli.sinks import disk
from deeplayer_cli.sinks.reading import LONGEST_LINE, read_predictions
from deeplayer_cli.sinks.run_record import load_record, record_path, refuse_other_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from deeplayer_cli.schema import BadRequest, Id, Request
    from deeplayer_cli.sinks.run_record import RunRecord

SYNC_ROWS, SYNC_SECONDS = 64, 2.0
"""Rows are forced to the disk after so many rows or seconds of writing; a power cut loses no more than that."""


class ResumeMode(Enum):
    """What a run does with a file that already contains rows."""

    NEW = "nothing"
    RESUME = "continue it"
    RETRY = "continue it, and answer its error rows again"
    OVERWRITE = "empty it, once there is a first row to write"


class PredictionFile:
    """Appends predictions as whole lines; a lock keeps other runs from writing the file.

    A process that dies at any moment leaves a file of whole lines with at most one torn line behind them, which the
    next resumed run cuts off. Rows answered again replace their error rows all at once, when the file is closed.

    Args:
        path: the file, created if missing; if it exists, it must be a regular file.
        record: the record of this run; written beside the file before the first row.
        mode: what to do if the file contains rows.

    Raises:
        DeeplayerError: ``mode`` does not allow a file with rows, the file has other settings, another run is writing
            it, or the system reports an error.
    """

    def __init__(self, path: Path, record: RunRecord, mode: ResumeMode) -> None:
        self.path, self.record = path, record
        self.answered = AnsweredIndex()
        self._again: _RetriedRows | None = None
        self._outdated = False  # the first new row replaces the rows in the file
        self._before: RunRecord | None = None  # of the run that this one resumes
        self._n_written = 0
        self._unsynced, self._synced_at = 0, time.monotonic()
        with writing(str(path)):
            self._descriptor = _open_locked(path)
            try:
                self._size = os.fstat(self._descriptor).st_size
                self._prepare(mode)
            except BaseException:
                os.close(self._descriptor)
                raise

    def _prepare(self, mode: ResumeMode) -> None:
        if mode is ResumeMode.OVERWRITE:
            self._outdated = True  # the old rows stay if the run ends before its first row
            return
        if self._size:
            old = load_record(self.path)
            if mode is ResumeMode.NEW:
                same = old is not None and old.fingerprint == self.record.fingerprint
                hint = "--resume continues its run, " if same else ""
                raise DeeplayerError(f"{self.path} is not empty: {hint}--overwrite replaces it, or write elsewhere")
            if old is None:
                raise DeeplayerError(
                    f"{self.path} cannot be resumed without {record_path(self.path).name}, which records its settings: "
                    "--overwrite starts the run again, or write elsewhere"
                )
            refuse_other_settings(self.path, old, self.record)
            self._before = old
            rows = _WholeRows(self.path)
            self.answered = AnsweredIndex(rows)
            _refuse_repeated(self.path, self.answered)
            self._cut(rows.end)
        _RetriedRows.clear(self.path)  # left by a run that was killed
        if mode is ResumeMode.RETRY and self.answered.n_errors:
            self._again = _RetriedRows(self.path)
        self.record.save(self.path)

    def _replace(self) -> None:
        """Start the file anew; the old rows go only once the new record is on the disk."""
        with self.record.saving(self.path):
            self._cut(0)
        self._outdated = False
        _RetriedRows.clear(self.path)

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(str(self.path)):
            try:
                if kind is None:
                    self._require_unchanged()
                if self._outdated and kind is None:
                    self._replace()
                disk.sync(self._descriptor)
                if self._again is not None:
                    self._again.close(keep=kind is None or kind is KeyboardInterrupt)
            finally:
                os.close(self._descriptor)

    def unanswered(self, row: Request | BadRequest) -> bool:
        """Whether a row must still be answered.

        Raises:
            DeeplayerError: the file has an answer with this row's id, but for another image or expression.
        """
        known = self.answered.question(row.id)
        if known not in (None, question_hash(row)):
            raise DeeplayerError(
                f"{row.where}: {self.path} contains id {row.id!r} with another image or expression: "
                "the input has changed; write to another file"
            )
        return self.lacks(row.id)

    def lacks(self, row_id: Id) -> bool:
        """Whether the row with this id must still be answered."""
        again = self._again is not None and self.answered.failed(row_id)
        return again or self.answered.question(row_id) is None

    def write(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            DeeplayerError: writing fails, for example because the disk is full; the file keeps its whole lines.
        """
        line = prediction.to_json()
        with writing(str(self.path)):
            self._require_unchanged()
            if self._outdated:
                self._replace()
            self._n_written += 1
            if self._again is not None and self.answered.failed(prediction.id):
                self._again.write(id_hash(prediction.id), line)
            else:
                self._append(line)

    def predictions(self) -> Iterator[Prediction]:
        """Read all rows of the file."""
        return read_predictions(self.path)

    def finish(
        self,
        counts: Mapping[str, int],
        profile: Mapping[str, object] | None = None,
        part: Mapping[str, object] | None = None,
    ) -> None:
        """Record that the run has finished, for all rows of its input or for a part of them.

        Without a new profile, the profile of an earlier run stays. If a run was asked for a part and had nothing to do,
        a whole file stays whole.
        """
        was_whole = self._before is not None and self._before.counts is not None and not self._before.part
        part = {} if was_whole and not self._n_written else part or {}
        record = dataclasses.replace(self.record, counts=counts, profile=profile or self.record.profile, part=part)
        record.save(self.path)

    def outdated(self, row: Request | BadRequest) -> bool:
        """Whether the file answers this row, but with another gold box or other fields than the row has now."""
        known = self.answered.details(row.id)
        return known is not None and known != details_hash(row)

    def _require_unchanged(self) -> None:
        """Stop if another program has cut, replaced or moved the file: rows would be lost silently.

        Raises:
            DeeplayerError: another program has.
        """
        mine = os.fstat(self._descriptor)
        try:
            is_here = os.path.samestat(mine, self.path.stat())
        except FileNotFoundError:
            is_here = False
        if not is_here or mine.st_size != self._size:
            what = "cut or written to" if is_here else "moved or replaced"
            raise DeeplayerError(f"{self.path} was {what} by another program during the run: later rows are not in it")

    def _append(self, line: bytes) -> None:
        try:
            disk.write_all(self._descriptor, line)
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
    """Rows answered again, in a separate file until they replace the old rows all at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows, self._whole = self._aside(path)
        self._places: dict[int, tuple[int, int]] = {}
        self._descriptor = os.open(self._rows, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._size = 0

    @classmethod
    def clear(cls, path: Path) -> None:
        """Remove the separate files of ``path``."""
        for aside in cls._aside(path):
            aside.unlink(missing_ok=True)

    @staticmethod
    def _aside(path: Path) -> tuple[Path, Path]:
        """Return the paths of the rows answered again, and of the whole file with these rows in their places."""
        target = Path(os.path.realpath(path))  # a link stays a link
        return target.with_name(f"{target.name}.again"), target.with_name(f"{target.name}.partial")

    def write(self, key: int, line: bytes) -> None:
        disk.write_all(self._descriptor, line)
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
                    disk.write_all(whole, line if place is None else os.pread(self._descriptor, place[1], place[0]))
            os.fchmod(whole, stat.S_IMODE(self._path.stat().st_mode))
            disk.sync(whole)
            disk.replace(self._whole, Path(os.path.realpath(self._path)))
        finally:
            os.close(whole)


class _WholeRows:
    """Iterates over the rows of a file up to a torn tail; after that, ``end`` is the size of these rows in bytes.

    Raises:
        DeeplayerError: a line in the middle is not a prediction; a crash does not leave such a line.
    """

    def __init__(self, path: Path) -> None:
        self.end = 0
        self._path = path

    def __iter__(self) -> Iterator[Prediction]:
        torn = None
        with self._path.open("rb") as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE):
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
                        f"{self._path}:{torn} is not a prediction, but predictions follow it: delete it to resume"
                    )
                self.end += len(line)
                yield row


def _open_locked(path: Path) -> int:
    """Open a file for appending and lock it against other runs; the system frees the lock when the process ends."""
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
        raise DeeplayerError(f"{path} contains id {row_id!r} twice, so it cannot be resumed: write to another file")
