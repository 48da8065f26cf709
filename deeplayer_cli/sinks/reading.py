"""Reading prediction files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.schema import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Stream the rows of a prediction file.

    Raises:
        DeeplayerError: the file cannot be read, or a line is not a prediction; the message names file and line.
    """
    with reading(str(path)), path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield Prediction.from_json(line)
            except ValueError as error:
                raise DeeplayerError(f"{path}:{number} is not a prediction: {error}") from error
