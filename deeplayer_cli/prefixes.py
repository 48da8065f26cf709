"""What has been computed about the images at hand, for methods that take turns at them.

They share what the vision tower makes of the images and, if they follow each other and drop after the same layer, the
images' way through the layers until then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from deeplayer_cli import pruning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.engine import Encoded, Engine
    from deeplayer_cli.engine.engine import Prefix
    from deeplayer_cli.pipeline import TiledImage


class Prefixes:
    """Some images, what the vision tower makes of them, and the last prefix that was computed for them."""

    def __init__(self) -> None:
        self._images: list[TiledImage] = []
        self._encoded: dict[bool, tuple[Encoded, float]] = {}
        self._prefix: tuple[object, Prefix, float] | None = None

    def of(self, engine: Engine, images: Sequence[TiledImage]) -> tuple[Prefix, float]:
        """The prefix of images of equal tile count, and the seconds spared as a part of it was there."""
        if self._images != list(images):
            self.clear()  # the old ones make room first
            self._images = list(images)
        encoded, spared = self._encode(engine)
        n_visual = encoded.features.shape[1]
        kind = (engine.method.reads_class, engine.prefix_kind(n_visual))
        if self._prefix is not None and self._prefix[0] == kind:
            _, prefix, seconds = self._prefix
            return prefix, spared + seconds
        self._prefix, begun = None, time.perf_counter()
        places = [pruning.token_places(image.grid, len(image.tiles), n_visual) for image in images]
        prefix = engine.prefix(encoded, torch.stack(places))
        self._prefix = kind, prefix, _seconds_since(begun)
        return prefix, spared

    def clear(self) -> None:
        """Forget everything."""
        self._images, self._encoded, self._prefix = [], {}, None

    def _encode(self, engine: Engine) -> tuple[Encoded, float]:
        kind = engine.method.reads_class
        if kind in self._encoded:
            return self._encoded[kind]
        begun = time.perf_counter()
        with engine.watch.timing("copy"):
            tiles = torch.from_numpy(np.stack([image.tiles for image in self._images])).to(engine.device)
        encoded = engine.encode(tiles)
        self._encoded[kind] = encoded, _seconds_since(begun)
        return encoded, 0.0


def _seconds_since(begun: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
