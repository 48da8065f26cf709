"""Lines as they arrive."""

from __future__ import annotations

import io
import os
import threading
from contextlib import closing
from threading import Semaphore

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sources.arriving import ArrivingRows, PipeLines


def piped(data: bytes) -> io.FileIO:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    return os.fdopen(read, "rb", buffering=0)


@given(st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=20), st.integers(1, 12))
def test_lines_are_those_that_a_file_has(parts, limit):
    data = b"".join(parts)
    with closing(piped(data)) as stream:
        lines, expected = PipeLines(stream), io.BytesIO(data)
        while True:
            line = lines.readline(limit)
            assert line == expected.readline(limit)
            if not line:
                break


def test_a_pipe_that_refuses_to_wait_is_waited_for():
    read, write = os.pipe()
    os.set_blocking(read, False)
    with os.fdopen(read, "rb", buffering=0) as stream:
        writer = threading.Timer(0.2, lambda: (os.write(write, b"one\n"), os.close(write)))
        writer.start()
        assert PipeLines(stream).readline(10) == b"one\n"
        writer.join()


def test_rows_are_ready_when_they_have_come():
    gate = Semaphore(0)

    def arriving():
        for number in range(3):
            gate.acquire()
            yield number

    rows = ArrivingRows(arriving())
    for number in range(3):
        assert not rows.ready()
        gate.release()
        assert rows.wait(10) and rows.ready()
        assert next(rows) == number
    assert rows.wait(10) and list(rows) == [] and rows.ready(), "the end is there, and stays"


def test_what_goes_wrong_on_the_way_comes_in_its_place():
    def arriving():
        yield 1
        raise DeeplayerError("gone")

    rows = ArrivingRows(arriving())
    assert next(rows) == 1
    for _ in range(2):
        with pytest.raises(DeeplayerError, match="gone"):
            next(rows)


def test_a_source_that_is_faster_than_its_reader_waits():
    taken = []
    rows = ArrivingRows(taken.append(number) or number for number in range(10_000))
    for number in range(200):
        assert next(rows) == number
        assert len(taken) < number + 100
    rows.close()
