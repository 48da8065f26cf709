"""The demo model on scenes that it never saw."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deeplayer_cli.demo.scenes import HELD_OUT_SEEDS, write
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeplayer_cli.grounder import Grounder
    from deeplayer_cli.schema import Prediction


def predict(grounder: Grounder, first: int, count: int) -> Iterator[Prediction]:
    """Ground about four expressions on each of ``count`` held-out scenes, from scene number ``first`` on.

    The scenes pass through PNG files and the request reader, as anybody's images would.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, HELD_OUT_SEEDS, first, count)
        yield from grounder.ground(JsonLines(folder / "requests.jsonl", "requests.jsonl", folder).rows())
