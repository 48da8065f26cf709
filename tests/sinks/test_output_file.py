"""Files that are written as a whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks import disk
from deeplayer_cli.sinks.output_file import refuse_output, replacing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.csv"
    path.write_text("old")
    return path


@pytest.mark.parametrize("step", ["sync", "replace"])
def test_a_fault_keeps_the_old_file(step: str, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, step, fail)
    with pytest.raises(DeeplayerError, match=r"old\.csv"), replacing(old) as partial:
        partial.write_text("new")
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_a_writer_that_fails_keeps_the_old_file(old: Path) -> None:
    with pytest.raises(KeyError), replacing(old) as partial:
        partial.write_text("half")
        raise KeyError
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_links_and_modes_stay(old: Path) -> None:
    old.chmod(0o640)
    link = old.with_name("link.csv")
    link.symlink_to(old.name)
    with replacing(link) as partial:
        partial.write_text("new")
    assert link.is_symlink() and old.read_text() == "new" and old.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    refuse_output(pipe)
    with replacing(pipe) as partial:
        partial.write_text("new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)


def test_refused_before_any_work(old: Path) -> None:
    with pytest.raises(DeeplayerError, match="is also an input"):
        refuse_output(old, inputs=[old.parent / "missing", old], overwrite=True)
    with pytest.raises(DeeplayerError, match=r"old\.csv exists: --overwrite replaces it"):
        refuse_output(old)
    with pytest.raises(DeeplayerError, match="there is no folder"):
        refuse_output(old.parent / "no" / "new.csv")
    with pytest.raises(DeeplayerError, match="is a folder"), replacing(old.parent):
        pass
    refuse_output(old, overwrite=True)
