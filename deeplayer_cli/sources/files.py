"""What every source needs to say about its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath


def in_text(path: PurePath | str) -> str:
    r"""A path as text that JSON can hold: bytes of its name that are not UTF-8 become ``\x..``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
