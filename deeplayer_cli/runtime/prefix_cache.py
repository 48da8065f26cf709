"""The prefix cache: the visual tokens and the prefixes of the current images. It is the only owner of prefixes.

Methods that take turns on the same images share one cache. They share the output of the vision tower and, if their
prefixes are of the same kind (`engine.prefix.PrefixKind`), also the images' prefix.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
import torch

from deeplayer_cli import pruning
from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.models.internvl.vision import Encoded

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from deeplayer_cli.engine import Engine, Prefix
    from deeplayer_cli.images.loader import LoadedImage


@dataclass(frozen=True)
class CachedPrefix:
    """A prefix from the cache; valid until the cache computes another one.

    Attributes:
        prefix: of some images.
        index: the index of each image in the prefix, by the image's key.
        seconds_saved: seconds that the engine would have spent on the prefix alone, minus the seconds that it spent.
    """

    prefix: Prefix
    index: Mapping[Hashable, int]
    seconds_saved: float


@dataclass
class _Group:
    """Images of equal tile count, and the output of the vision tower for them.

    Attributes:
        images: by key, in order.
        encoded: the output, and the seconds that it took; by whether it includes the class token's attention.
        served: ids of the engines that had a prefix of these images.
    """

    images: dict[Hashable, LoadedImage] = field(default_factory=dict)
    encoded: dict[bool, tuple[Encoded, float]] = field(default_factory=dict)
    served: set[int] = field(default_factory=set)


class PrefixCache:
    """A cache of one group of images of equal tile count, and of the last prefix that was computed for some of them.

    A key identifies an image: its ``ImageId`` if rows about one image share its prefix, otherwise a key of its row.

    Attributes:
        lock: held while a batch uses the cache, so that threads which share the cache take turns, a batch each.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._group = _Group()
        self._kind: object = None
        self._index: dict[Hashable, int] = {}
        self._prefix: Prefix | None = None
        self._seconds = 0.0

    def keys(self, engine: Engine) -> Mapping[Hashable, int]:
        """Return the index of each image in the cached prefix, by key; empty if ``engine`` cannot use that prefix."""
        if self._prefix is None or self._kind != _kind(engine, self._prefix.n_visual):
            return {}
        return self._index

    def get(self, engine: Engine, images: Mapping[Hashable, LoadedImage]) -> CachedPrefix:
        """Return a prefix that contains ``images``: the cached one, or else a new one of just these images.

        Args:
            engine: computes what is missing.
            images: of equal tile count, by key.
        """
        if images.keys() <= self.keys(engine).keys():
            saved = 0.0 if id(engine) in self._group.served else self._encoding_seconds(engine) + self._seconds
        else:
            reused = self._compute(engine, images)
            # Alone, the engine would still have its earlier prefix of these images.
            saved = -self._seconds if id(engine) in self._group.served else reused
        self._group.served.add(id(engine))
        assert self._prefix is not None  # noqa: S101 - it was cached, or was just computed
        return CachedPrefix(self._prefix, self._index, saved)

    def clear(self) -> None:
        """Free the images and the prefix."""
        with self.lock:
            self._group = _Group()
            self._clear_prefix()

    def _clear_prefix(self) -> None:
        self._kind, self._index, self._prefix, self._seconds = None, {}, None, 0.0

    def _compute(self, engine: Engine, images: Mapping[Hashable, LoadedImage]) -> float:
        """Compute a prefix; return the seconds of its encoding if that was cached, otherwise 0.0."""
        self._clear_prefix()  # frees the old prefix first
        if not images.keys() <= self._group.images.keys():
            self._group = _Group(dict(images))
        encoded, reused = self._encode(engine)
        n_visual = encoded.features.shape[1]
        if list(images) != list(self._group.images):
            order = {key: number for number, key in enumerate(self._group.images)}
            wanted = torch.tensor([order[key] for key in images], device=encoded.features.device)
            encoded = Encoded(*(part[wanted] for part in encoded))
        begun = time.perf_counter()
        places = [pruning.token_places(image.grid, len(image.tiles), n_visual) for image in images.values()]
        self._prefix = engine.prefix(encoded, torch.stack(places))
        self._kind, self._seconds = _kind(engine, n_visual), _seconds_since(begun, engine.device)
        self._index = {key: number for number, key in enumerate(images)}
        return reused

    def _encode(self, engine: Engine) -> tuple[Encoded, float]:
        """Return the encoding of the group, and the seconds that it took if it was cached, otherwise 0.0."""
        kind = engine.method.reads_vision_attention
        if kind in self._group.encoded:
            return self._group.encoded[kind]
        begun = time.perf_counter()
        with engine.watch.timing("copy"):
            tiles = np.stack([image.tiles for image in self._group.images.values()])
            on_device = to_device(torch.from_numpy(tiles), engine.device)
        encoded = engine.encode(on_device)
        self._group.encoded[kind] = encoded, _seconds_since(begun, engine.device)
        return encoded, 0.0

    def _encoding_seconds(self, engine: Engine) -> float:
        _, seconds = self._group.encoded[engine.method.reads_vision_attention]
        return seconds


def _kind(engine: Engine, n_visual: int) -> object:
    return engine.method.reads_vision_attention, engine.prefix_kind(n_visual)


def _seconds_since(begun: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
