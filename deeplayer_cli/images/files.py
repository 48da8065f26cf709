"""Opening image files; the only place that does."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deeplayer_cli.errors import RowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

MAX_BYTES = 512 * 2**20
"""Largest image file to read, in bytes."""


@contextmanager
def opened_file(path: Path, max_bytes: int) -> Iterator[BufferedReader]:
    """Open a regular file for reading, links followed; the file that is checked is the file that is read.

    Raises:
        RowError: ``image_missing``; ``image_unreadable`` (not a regular file, or no permission); ``image_broken``
            (empty); or ``image_too_large`` (more than ``max_bytes`` bytes).
    """
    with reading_image(path):
        _check(path, path.stat(), max_bytes)  # before opening: opening a pipe or a device may wait or have an effect
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the block below closes it
    with file:
        _check(path, os.fstat(file.fileno()), max_bytes)  # another file may have taken the path meanwhile
        yield file


@contextmanager
def reading_image(path: Path) -> Iterator[None]:
    """Turn an error of the system about the file ``path`` into a `RowError`."""
    try:
        yield
    except FileNotFoundError as error:
        with_slashes = str(path).replace("\\", "/")
        is_there = os.path.exists(with_slashes)  # noqa: PTH110 - false where it cannot be told
        way_out = f", but {with_slashes} does: write / between folders" if is_there else ""
        raise RowError("image_missing", f"{path} does not exist{way_out}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise RowError(
            "image_unreadable", f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def content_digest(path: Path) -> str:
    """Return a digest of a file's content, 16 hexadecimal digits: the ``image_id`` of rows.

    Raises:
        RowError: as `opened_file`.
    """
    with opened_file(path, MAX_BYTES) as file, reading_image(path):
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check(path: Path, status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise RowError("image_unreadable", f"{path} is {what}, not an image")
    if status.st_size == 0:
        raise RowError("image_broken", f"{path} is empty")
    if status.st_size > max_bytes:
        raise RowError("image_too_large", f"{path} has {status.st_size:,} bytes; at most {max_bytes:,} are read")
