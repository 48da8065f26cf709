"""What every source needs to say about its files."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath


def in_text(path: PurePath | str) -> str:
    r"""A path as text that JSON can hold: bytes of its name that are not UTF-8 become ``\x..``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Inside, whatever the system refuses becomes a `DeeplayerError` that names the source."""
    try:
        yield
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be read: {error.strerror or error}") from error
