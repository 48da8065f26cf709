"""Lines as they arrive."""

from __future__ import annotations

import io
import os
import threading
from contextlib import closing
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.sources.live import LiveLines, Sieve


def piped(data: bytes) -> io.FileIO:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    return os.fdopen(read, "rb", buffering=0)


@given(st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=20), st.integers(1, 12))
def test_lines_are_those_that_a_file_has(parts, limit):
    data = b"".join(parts)
    with closing(piped(data)) as stream:
        lines, expected = LiveLines(stream), io.BytesIO(data)
        while True:
            line = lines.readline(limit)
            assert line == expected.readline(limit)
            if not line:
                break
        assert lines.ready()


@pytest.mark.parametrize("size", [10, 200_000])
def test_whether_a_line_is_there(size):
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as stream:
        lines = LiveLines(stream)
        assert not lines.ready()
        for _ in range(2):
            os.write(write, b"one\ntwo\n")
            assert lines.ready()
            assert lines.readline(size) == b"one\n"
            assert lines.ready()
            assert lines.readline(size) == b"two\n"
            assert not lines.ready()
        os.close(write)
        assert lines.ready()
        assert lines.readline(size) == b""


def test_a_line_that_has_only_begun_is_not_there():
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as stream:
        lines = LiveLines(stream)
        for part in (b"o", b"n"):
            os.write(write, part)
            assert not lines.ready()
        os.write(write, b"e\n")
        assert lines.ready()
        assert lines.readline(10) == b"one\n"
        os.close(write)


def test_a_pipe_that_refuses_to_wait_is_waited_for():
    read, write = os.pipe()
    os.set_blocking(read, False)
    with os.fdopen(read, "rb", buffering=0) as stream:
        writer = threading.Timer(0.2, lambda: (os.write(write, b"one\n"), os.close(write)))
        writer.start()
        assert LiveLines(stream).readline(10) == b"one\n"
        writer.join()


@given(st.lists(st.booleans()), st.lists(st.integers(0, 3)))
def test_a_sieve_is_ready_where_a_wanted_item_has_come(wanted, bursts):
    """However items come in bursts, whoever takes one only where one is ready never takes what has not come."""
    arrived, taken, passed = 0, [], []
    items = (taken.append(number) or number for number in range(len(wanted)))
    sieve = Sieve(items, lambda: len(taken) < arrived or arrived == len(wanted), wanted.__getitem__)
    for burst in [*bursts, len(wanted)]:
        arrived = min(arrived + burst, len(wanted))
        while sieve.ready():
            passed += list(islice(sieve, 1))
            if arrived == len(taken) == len(wanted):
                break
        assert len(taken) == arrived
        assert passed == [number for number in range(arrived) if wanted[number]]
    assert list(sieve) == []
