"""Lines as they arrive."""

from __future__ import annotations

import io
import os
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.sources.live import LiveLines


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
