"""Ids of rows without one: the same for every way to type a path, whatever other sources there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation import read_gold
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.loader import ImageLoader, WorkerTimes, read_ahead
from deeplayer_cli.schema import Request
from deeplayer_cli.sinks.descriptors import is_descriptor
from deeplayer_cli.sources import Expression, open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW = b'{"image": "1.png", "expression": "dog", "box": [0, 0, 1, 1]}\n'
DOG = [Expression("dog")]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders ``two/a`` and ``two/b``, each with rows and an image, in the working directory."""
    for name in "ab":
        folder = tmp_path / "two" / name
        folder.mkdir(parents=True)
        (folder / "r.jsonl").write_bytes(ROW)
        Image.new("RGB", (4, 4)).save(folder / "1.png")
    (tmp_path / "link").symlink_to(tmp_path / "two" / "a")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(*sources: str | Path, expressions: Sequence[Expression] = ()) -> list[object]:
    return [row.id for row in open_source([str(source) for source in sources], expressions=expressions)]


SPELLINGS = ("two/a", "./two/a", "two/../two/a/", "two//a", "link", "{}/two/a")


@pytest.mark.parametrize("others", [[], ["two/b"]])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("file", "expressions", "expected"),
    [("/r.jsonl", [], "a/r.jsonl:1"), ("", [], "a/r.jsonl:1"), ("", DOG, "a/1.png#1"), ("/1.png", DOG, "a/1.png#1")],
)
def test_an_id_does_not_depend_on_spelling_or_company(
    two: Path, spelling: str, others: list[str], file: str, expressions: list[Expression], expected: str
) -> None:
    assert ids(spelling.format(two) + file, *others, expressions=expressions)[0] == expected


def test_an_id_does_not_depend_on_the_working_directory(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two / "two" / "a")
    for source in (".", "r.jsonl", "../a"):
        assert ids(source) == ["a/r.jsonl:1"]
    assert ids(".", expressions=DOG) == ids("1.png", expressions=DOG) == ["a/1.png#1"]


def test_gold_has_the_names_of_the_rows(two: Path) -> None:
    del two
    for path in ("two/a/r.jsonl", "./two/a/r.jsonl", "link/r.jsonl"):
        assert list(read_gold(Path(path))) == ids("two/a/r.jsonl")


def test_images_and_sources_tell_folders_apart(two: Path) -> None:
    del two
    rows = list(open_source(["two/a", "two/b"], expressions=DOG))
    assert [row.image for row in rows] == ["a/1.png", "b/1.png"]
    assert [row.where for row in open_source(["two/a", "two/b"])] == ["a/r.jsonl:1", "b/r.jsonl:1"]


@pytest.mark.parametrize(
    ("first", "second", "name", "expressions"),
    [
        ("two/a/r.jsonl", "./two/a/r.jsonl", "a/r.jsonl", []),
        ("two/a/r.jsonl", "other/a/r.jsonl", "a/r.jsonl", []),
        ("two/a", "other/a", "a/r.jsonl", []),
        ("two/a", "other/a", "a", DOG),
        ("link", "two/a", "a", DOG),
        ("-", "-", "stdin", []),
    ],
)
def test_equal_names_are_refused(two: Path, first: str, second: str, name: str, expressions: list[Expression]) -> None:
    (two / "other" / "a").mkdir(parents=True)
    (two / "other" / "a" / "r.jsonl").write_bytes(ROW)
    Image.new("RGB", (4, 4)).save(two / "other" / "a" / "1.png")
    with pytest.raises(DeeplayerError, match=rf"{first}.* and {second}.* are both called {name} in ids"):
        open_source([first, second], expressions=expressions)


@pytest.mark.parametrize("rooted", [None, "root"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_rows_from_a_descriptor_find_images_from_the_working_directory(
    two: Path, kind: str, rooted: str | None
) -> None:
    """``<(...)`` is ``/dev/fd/63``; a shell's ``<`` makes ``/dev/stdin`` a file."""
    root = None if rooted is None else two / rooted
    if kind == "pipe":
        descriptor, writer = os.pipe()
        os.write(writer, ROW)
        os.close(writer)
    else:
        descriptor = os.open(two / "two" / "a" / "r.jsonl", os.O_RDONLY)
    source = f"/dev/fd/{descriptor}"
    assert not open_source([source]).repeatable
    (row,) = open_source([source], image_root=root)
    os.close(descriptor)
    assert isinstance(row, Request) and row.path == (root or Path()) / "1.png"
    assert row.where == f"fd/{descriptor}:1"
    (window,) = read_ahead([row], ImageLoader(open_image, pytest.fail, WorkerTimes()), workers=1, window=1)
    (error,) = [loaded.error.message for loaded in window if loaded.error]
    assert ("start from the working directory: --image-root" in error) is (root is None)


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/63", "/dev/./fd/0", "/proc/self/fd/0", "/proc/4711/fd/3"])
def test_descriptors(path: str) -> None:
    assert is_descriptor(Path(path))


@pytest.mark.parametrize("path", ["-", "./-", "dev/fd/63", "/dev/shm/rows.jsonl", "/dev/fd/x", "/proc/self/fd"])
def test_files_are_no_descriptors(path: str) -> None:
    assert not is_descriptor(Path(path))
