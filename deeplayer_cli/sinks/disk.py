"""The few calls that change a file, in one place, so that a test can make each of them fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write(descriptor: int, data: memoryview) -> int:
    """Write some of ``data``, and return the number of bytes written."""
    return os.write(descriptor, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(descriptor, rest) :]


def sync(descriptor: int) -> None:
    """Wait until the written data has reached the disk."""
    os.fsync(descriptor)


def truncate(descriptor: int, size: int) -> None:
    """Cut a file to ``size`` bytes."""
    os.ftruncate(descriptor, size)


def replace(source: Path, target: Path) -> None:
    """Replace ``target`` by ``source`` as a whole or not at all, even if the power fails."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
