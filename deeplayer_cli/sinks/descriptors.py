"""Paths that name an open file descriptor, such as ``-`` and ``/dev/stdout``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_OWN = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_OF_A_PROCESS = re.compile(r"/proc/[^/]+/fd/\d+")
_NAMES = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def named_descriptor(path: Path, dash: int) -> int | None:
    """Return the number of the open descriptor that a path names; None for every other path.

    A descriptor is used as it is. Opening its path anew would empty a file that the shell appends to (``>> file``), and
    files that belong beside the output would end up in ``/dev``.

    Args:
        path: as the user wrote it.
        dash: what ``-`` means: 0 for an input, 1 for an output.
    """
    return dash if str(path) == "-" else _number(path)


def is_descriptor(path: Path) -> bool:
    """Whether a path stands for an open descriptor, such as the ``/dev/fd/63`` of ``<(...)``."""
    return _number(path) is not None or _OF_A_PROCESS.fullmatch(os.path.normpath(path)) is not None


def _number(path: Path) -> int | None:
    name = os.path.normpath(path)
    found = _OWN.fullmatch(name)
    return int(found[1]) if found else _NAMES.get(name)
