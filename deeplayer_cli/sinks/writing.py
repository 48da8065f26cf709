"""What every sink says when the system refuses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Inside, whatever the system refuses becomes a `DeeplayerError` that names the output."""
    try:
        yield
    except BrokenPipeError:
        raise  # no failure of this run: the reader has seen enough
    except OSError as error:
        raise DeeplayerError(f"{name} cannot be written: {error.strerror or error}") from error
