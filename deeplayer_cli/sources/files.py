"""File names as text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath


def in_text(path: PurePath | str) -> str:
    r"""Return a path as text that JSON can contain: bytes of its name that are not UTF-8 become ``\x..``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
