"""Entries of a folder are written as a whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks import disk
from deeplayer_cli.sinks.output_file import refuse_folder, replacing_entries

if TYPE_CHECKING:
    from pathlib import Path


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, text: str) -> None:
    (folder / "labels").mkdir()
    (folder / "labels" / f"{text}.txt").write_text(text)
    (folder / "data.yaml").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with replacing_entries(tmp_path / "out") as partial:
        fill(partial, "old")
    (tmp_path / "out" / "mine").write_text("mine")
    return tmp_path / "out"


def test_entries_take_the_place_of_those_with_their_name(folder: Path) -> None:
    with replacing_entries(folder) as partial:
        fill(partial, "new")
    assert tree(folder) == {"labels/new.txt": "new", "data.yaml": "new", "mine": "mine"}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("number", range(4))
def test_what_fails_leaves_all_as_it_was(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, calls, replace = tree(folder), 0, disk.replace

    def fail_once(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == number + 1:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(disk, "replace", fail_once)
    with (
        pytest.raises(DeeplayerError, match="out cannot be written: No space left on device"),
        replacing_entries(folder) as partial,
    ):
        fill(partial, "new")
    assert tree(folder) == before and [path.name for path in folder.parent.iterdir()] == ["out"]


def test_files_of_another_kind_are_not_lost_with_a_folder(folder: Path) -> None:
    (folder / "labels" / "photo.png").write_text("mine")
    before = tree(folder)
    with pytest.raises(DeeplayerError, match=r"photo\.png would be lost"), replacing_entries(folder) as partial:
        fill(partial, "new")
    assert tree(folder) == before and [path.name for path in folder.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/dev/null", "/", "FILE", "FOLDER/no/where"])
def test_what_cannot_be_a_folder_is_refused(name: str, folder: Path) -> None:
    path = type(folder)(name.replace("FILE", str(folder / "mine")).replace("FOLDER", str(folder)))
    with pytest.raises(DeeplayerError, match=r"is not a folder|there is no folder"):
        refuse_folder(path)


def test_what_a_killed_run_set_aside_comes_back(folder: Path) -> None:
    before, aside = tree(folder), folder.with_name(".out.old")
    aside.mkdir()
    folder.with_name(".out.partial").mkdir()
    (folder / "labels").rename(aside / "labels")
    with pytest.raises(KeyboardInterrupt), replacing_entries(folder):
        raise KeyboardInterrupt
    assert tree(folder) == before and [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_block_that_fails_leaves_all_as_it_was(folder: Path) -> None:
    before = tree(folder)
    with pytest.raises(KeyboardInterrupt), replacing_entries(folder) as partial:
        fill(partial, "new")
        raise KeyboardInterrupt
    assert tree(folder) == before
