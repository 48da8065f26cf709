from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks import PredictionFile, ResumeMode, RunRecord, open_sink, refuse_same_file
from deeplayer_cli.sinks.stream import Stream

ROW = Prediction(id=1, image="a.jpg", expression="dog", status="no_box")
RECORD = RunRecord({}, {})


def test_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_sink(None, RECORD) as sink:
        sink.write(ROW)
    sys.stdout.write("still open\n")
    assert capfdbinary.readouterr().out == ROW.to_json() + b"still open\n"


def test_files_can_be_continued_and_streams_cannot(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open_sink(tmp_path / "out.jsonl", RECORD, ResumeMode.RESUME) as sink:
        assert isinstance(sink, PredictionFile)
    for path in (None, Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(DeeplayerError, match="cannot be resumed: name a file"):
            open_sink(path, RECORD, ResumeMode.RESUME)
    assert isinstance(open_sink(Path("/dev/null"), RECORD), Stream)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for path, reason in [(tmp_path, "is a folder"), (tmp_path / "none" / "out.jsonl", "there is no folder")]:
        with pytest.raises(DeeplayerError, match=reason) as caught:
            open_sink(path, RECORD)
        assert str(path) in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk() -> None:
    with (
        pytest.raises(DeeplayerError, match="/dev/full cannot be written: No space left"),
        open_sink(Path("/dev/full"), RECORD) as sink,
    ):
        sink.write(ROW)


def test_a_reader_that_left_is_no_failure() -> None:
    read_end, write_end = os.pipe()
    with open_sink(Path(f"/dev/fd/{write_end}"), RECORD) as sink:
        os.close(read_end)
        with pytest.raises(BrokenPipeError):
            sink.write(ROW)
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
