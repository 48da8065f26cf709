from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks import JsonlWriter, refuse_same_file


def test_lines_are_there_once_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonlWriter(path) as writer:
        for number in range(3):
            writer.write(b'{"id":%d}\n' % number)
            assert path.read_bytes().count(b"\n") == number + 1


def test_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with JsonlWriter(None) as writer:
        writer.write(b"{}\n")
    sys.stdout.write("still open\n")
    assert capfdbinary.readouterr().out == b"{}\nstill open\n"


def test_a_file_that_holds_something_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch()
    JsonlWriter(path).__exit__(None, None, None)
    path.write_bytes(b"precious\n")
    with pytest.raises(DeeplayerError, match=r"out\.jsonl is not empty"):
        JsonlWriter(path)
    assert path.read_bytes() == b"precious\n"
    with JsonlWriter(path, overwrite=True) as writer:
        writer.write(b"new\n")
    assert path.read_bytes() == b"new\n"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for path, reason in [(tmp_path, "is a folder"), (tmp_path / "none" / "out.jsonl", "there is no folder")]:
        with pytest.raises(DeeplayerError, match=reason) as caught:
            JsonlWriter(path)
        assert str(path) in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk() -> None:
    with (
        pytest.raises(DeeplayerError, match="/dev/full cannot be written: No space left"),
        JsonlWriter(Path("/dev/full")) as writer,
    ):
        writer.write(b"{}\n")


def test_after_a_failure_the_file_is_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    child = os.fork()
    if child == 0:  # the limit is the whole process's
        resource.setrlimit(resource.RLIMIT_FSIZE, (25, 25))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with JsonlWriter(path) as writer:
                for _ in range(10):
                    writer.write(b"123456789\n")
        except DeeplayerError as error:
            os._exit(0 if "File too large" in str(error) else 1)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == b"123456789\n123456789\n12345"


def test_a_reader_that_left_is_no_failure(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with JsonlWriter(Path(f"/dev/fd/{write_end}")) as writer:
        os.close(read_end)
        with pytest.raises(BrokenPipeError):
            writer.write(b"{}\n")
    os.close(write_end)


def test_output_must_not_be_an_input(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.touch()
    (tmp_path / "link.jsonl").symlink_to(source)
    refuse_same_file(None, [str(source)])
    refuse_same_file(output, [str(source), "-", "none"])
    refuse_same_file(tmp_path / "boxes.json", [str(tmp_path)])
    for path, read in [(source, source), (tmp_path / "link.jsonl", source), (output, tmp_path)]:
        with pytest.raises(DeeplayerError, match="write to another"):
            refuse_same_file(path, [str(read)])
