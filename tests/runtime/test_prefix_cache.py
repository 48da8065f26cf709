"""The prefix cache: what is computed once, what is freed, and whose time it saves."""

from __future__ import annotations

import time
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from deeplayer_cli.engine.stopwatch import Stopwatch
from deeplayer_cli.models.internvl.vision import Encoded
from deeplayer_cli.runtime.prefix_cache import PrefixCache

ENCODE, PREFIX = 8.0, 2.0


class FakeEngine:
    """Encodes and prefixes by name, and takes its time."""

    device = torch.device("cpu")

    def __init__(self, clock, *, kind=1, reads_class=False):
        self.clock, self.kind = clock, kind
        self.method = SimpleNamespace(reads_vision_attention=reads_class)
        self.watch = Stopwatch()
        self.calls = []

    def prefix_kind(self, n_visual):
        return self.kind

    def encode(self, tiles):
        self.clock[0] += ENCODE
        self.calls.append(("encode", len(tiles)))
        return Encoded(tiles[:, 0, 0, :1].float(), torch.empty(len(tiles), 1, 0), torch.empty(len(tiles), 1, 0))

    def prefix(self, encoded, places):
        self.clock[0] += PREFIX
        self.calls.append(("prefix", encoded.features[:, 0, 0].tolist()))
        return SimpleNamespace(n_visual=1, of=encoded.features[:, 0, 0].tolist())


@pytest.fixture
def clock():
    seconds = [0.0]
    with patch.object(time, "perf_counter", lambda: seconds[0]):
        yield seconds


def images(*numbers):
    return {number: SimpleNamespace(tiles=np.full((1, 3, 1, 1), number, np.uint8), grid=(1, 1)) for number in numbers}


def test_what_is_at_hand_is_not_computed_again(clock):
    cache, engine = PrefixCache(), FakeEngine(clock)
    cached = cache.get(engine, images(4, 5, 6))
    assert [cached.prefix.of[cached.index[key]] for key in (4, 5, 6)] == [4.0, 5.0, 6.0]
    assert cache.get(engine, images(5)).prefix is cached.prefix
    assert engine.calls == [("encode", 3), ("prefix", [4.0, 5.0, 6.0])]
    assert set(cache.keys(engine)) == {4, 5, 6}
    cache.clear()
    assert not cache.keys(engine)


def test_other_images_and_other_kinds_are_not_at_hand(clock):
    cache, engine, other = PrefixCache(), FakeEngine(clock), FakeEngine(clock, kind=2)
    cache.get(engine, images(4, 5, 6))
    assert not cache.keys(other)
    cached = cache.get(other, images(6, 5))
    assert other.calls == [("prefix", [6.0, 5.0])], "what the vision tower made is there"
    assert cached.prefix.of[cached.index[5]] == 5.0
    cache.get(other, images(5, 7))
    assert other.calls[1:] == [("encode", 2), ("prefix", [5.0, 7.0])]


def test_class_attention_is_an_encoding_of_its_own(clock):
    cache, plain, classy = PrefixCache(), FakeEngine(clock), FakeEngine(clock, reads_class=True)
    cache.get(plain, images(1, 2))
    assert cache.get(classy, images(1, 2)).seconds_saved == 0.0
    assert classy.calls == [("encode", 2), ("prefix", [1.0, 2.0])]


def test_an_engine_saves_what_it_would_have_spent_alone(clock):
    cache = PrefixCache()
    first, alike, other = FakeEngine(clock), FakeEngine(clock), FakeEngine(clock, kind=2)
    assert cache.get(first, images(1, 2)).seconds_saved == 0.0
    assert cache.get(first, images(1)).seconds_saved == 0.0
    assert cache.get(alike, images(1, 2)).seconds_saved == ENCODE + PREFIX
    assert cache.get(alike, images(2)).seconds_saved == 0.0, "it has been counted"
    assert cache.get(other, images(1, 2)).seconds_saved == ENCODE
    assert cache.get(first, images(2)).seconds_saved == -PREFIX, "alone, it would still have its own"
