from __future__ import annotations

import os
import sys
import threading
from io import TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import orjson
import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import MAX_ROW_BYTES, BadRequest, Request
from deeplayer_cli.sources import (
    ArrivingRows,
    Expression,
    count_rows,
    fail_repeated,
    open_source,
    parse_expression,
    parse_shard,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = b'{"image": "a.jpg", "expression": "dog"}'


def named(row_id: str) -> bytes:
    return ROW.replace(b"{", f'{{"id": "{row_id}", '.encode(), 1)


def write(path: Path, *lines: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def picture(path: Path, *expressions: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    if expressions:
        path.with_suffix(".txt").write_text("\n".join(expressions))
    return path


def ids(*sources: str | Path, **settings: object) -> list[object]:
    return [row.id for row in open_source([str(source) for source in sources], **settings)]  # type: ignore[arg-type]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose name is known: ids begin with it."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BinaryIO]:
    with (tmp_path / "stdin").open("w+b") as stream:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(stream))
        yield stream


def test_lines_are_numbered_and_rows_stay_in_place(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", b"\xef\xbb\xbf" + ROW + b"\r", b"", b"  \r", b"nonsense", ROW)
    rows = list(open_source([path]))
    assert [row.id for row in rows] == ["data/f.jsonl:1", "data/f.jsonl:4", "data/f.jsonl:5"]
    assert [type(row) for row in rows] == [Request, BadRequest, Request]
    assert count_rows(open_source([path])) == (3, 3)


@pytest.mark.parametrize("size", [MAX_ROW_BYTES, MAX_ROW_BYTES + 1, MAX_ROW_BYTES + 10, 3 * MAX_ROW_BYTES])
def test_long_lines_cost_themselves_only(size: int, tmp_path: Path) -> None:
    long = b'{"image": "a.jpg", "expression": "' + b"x" * (size - 36) + b'"}'
    assert len(long) == size
    path = write(tmp_path / "f.jsonl", long + b"\r", ROW)
    rows = list(open_source([path]))
    assert [row.id for row in rows] == ["data/f.jsonl:1", "data/f.jsonl:2"]
    assert isinstance(rows[0], Request) is (size <= MAX_ROW_BYTES)
    assert isinstance(rows[1], Request)
    assert count_rows(open_source([path])) == (2, 2)


def test_no_newline_at_the_end_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(ROW)
    (tmp_path / "empty.jsonl").touch()
    assert ids(tmp_path / "f.jsonl", tmp_path / "empty.jsonl") == ["data/f.jsonl:1"]


def test_image_paths_start_from_the_file_or_the_root(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "f.jsonl", ROW)
    (row,) = open_source([path])
    assert isinstance(row, Request) and row.path == tmp_path / "in" / "a.jpg" and row.image == "a.jpg"
    (row,) = open_source([path], image_root=Path("/root"))
    assert isinstance(row, Request) and row.path == Path("/root/a.jpg")


def test_an_empty_source_is_not_the_working_directory() -> None:
    with pytest.raises(DeeplayerError, match="a source is empty: name a file"):
        open_source([""])


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    first, second, other = (write(tmp_path / name, ROW) for name in ("a/f.jsonl", "b/f.jsonl", "g.jsonl"))
    assert ids(first, second, other) == ["a/f.jsonl:1", "b/f.jsonl:1", "data/g.jsonl:1"]


def test_stdin(stdin: BinaryIO) -> None:
    stdin.write(b"\n" + ROW + b"\nnonsense\n")
    stdin.seek(0)
    rows = list(open_source(["-"]))
    assert [(row.id, row.where) for row in rows] == [("2", "stdin:2"), ("3", "stdin:3")]
    assert isinstance(rows[0], Request) and rows[0].path == Path("a.jpg")
    assert not open_source(["-"]).repeatable


def test_empty_stdin(stdin: BinaryIO) -> None:
    assert ids("-") == []


def test_a_pipe_is_a_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(ROW + b"\n"))
    writer.start()
    assert not open_source([str(tmp_path / "pipe")]).repeatable
    assert ids(tmp_path / "pipe") == ["data/pipe:1"]
    writer.join()


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    rows = iter(open_source([f"/dev/fd/{read_end}"]))
    with os.fdopen(write_end, "wb", buffering=0) as stream:
        for _ in range(3):
            stream.write(ROW + b"\n")
            assert isinstance(next(rows), Request)
    os.close(read_end)


def test_a_folder_of_json_lines(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", ROW)
    write(tmp_path / "a.jsonl", ROW, ROW)
    picture(tmp_path / "photo.jpg", "ignored")
    assert ids(tmp_path) == ["data/a.jsonl:1", "data/a.jsonl:2", "data/b.jsonl:1"]
    assert ids(tmp_path, expressions=[Expression("dog")]) == ["data/photo.jpg#1"]


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden.png", ".git/d.png"):
        picture(tmp_path / name.replace("JPG", "jpg")).rename(tmp_path / name)
    (tmp_path / "notes.md").touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    expressions = [Expression("the dog", "dog"), Expression("a cat")]
    rows = list(open_source([str(tmp_path)], expressions=expressions))
    assert [row.id for row in rows] == [
        "data/a.JPG#dog", "data/a.JPG#2", "data/b.png#dog", "data/b.png#2", "data/sub/c.webp#dog", "data/sub/c.webp#2",
    ]  # fmt: skip
    assert all(isinstance(row, Request) and row.path == tmp_path.parent / row.image for row in rows)
    assert [row.meta for row in rows[:2]] == [{"label": "dog"}, {}]
    assert count_rows(open_source([str(tmp_path)], expressions=expressions)) == (6, 6)


def test_expressions_beside_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", "the dog", "", " a cat ")
    picture(tmp_path / "b.jpg")
    picture(tmp_path / "c.jpg").with_suffix(".txt").write_bytes(b"\xff")
    picture(tmp_path / "d.jpg", " ")
    rows = list(open_source([str(tmp_path)]))
    assert [(row.id, row.expression) for row in rows[:2]] == [("data/a.jpg#1", "the dog"), ("data/a.jpg#2", "a cat")]
    for row, path in zip(rows[2:], ("b", "c", "d"), strict=True):
        assert isinstance(row, BadRequest) and row.error.kind == "no_expression" and f"{path}.txt" in row.error.message
    assert count_rows(open_source([str(tmp_path)])) == (5, 5)


def test_images_and_several_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        picture(tmp_path / folder / "a.jpg")
    dog = [Expression("dog")]
    assert ids(tmp_path / "x" / "a.jpg", expressions=dog) == ["x/a.jpg#1"]
    assert ids(tmp_path / "x", tmp_path / "y", expressions=dog) == ["x/a.jpg#1", "y/a.jpg#1"]
    assert ids(tmp_path, expressions=dog) == ["data/x/a.jpg#1", "data/y/a.jpg#1"]


def test_names_that_are_not_utf8_are_read_and_shown_escaped(tmp_path: Path) -> None:
    path = picture(tmp_path / os.fsdecode(b"lat\xe9") / "a.jpg").rename(tmp_path / os.fsdecode(b"lat\xe9/\xff.jpg"))
    for source, name in ((tmp_path, r"data/lat\xe9/\xff.jpg"), (path.parent, r"lat\xe9/\xff.jpg")):
        (row,) = open_source([str(source)], expressions=[Expression("dog")])
        assert isinstance(row, Request) and row.path.samefile(path)
        assert (row.id, row.image, row.where) == (f"{name}#1", name, f"{name}#1")
    lines = write(tmp_path / os.fsdecode(b"l\xe9.jsonl"), ROW, b"nonsense")
    good, bad = open_source([lines])
    assert (good.id, bad.id) == (r"data/l\xe9.jsonl:1", r"data/l\xe9.jsonl:2")
    assert isinstance(bad, BadRequest) and orjson.dumps(bad.error.message)


def test_a_label_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(DeeplayerError, match=r"the label is not UTF-8"):
        parse_expression("caf\udce9=cup")


def test_sources_that_will_not_do(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.csv").touch()
    (tmp_path / "rows.jsonl.gz").touch()
    path = write(tmp_path / "f.jsonl", ROW)
    for source, message in [
        (tmp_path / "none", "does not exist"),
        (tmp_path / "images", "-e"),
        (tmp_path / "empty", "neither"),
        (tmp_path / "rows.csv", "--from-format auto"),
        (tmp_path / "rows.jsonl.gz", "is compressed: unpack it first"),
    ]:
        with pytest.raises(DeeplayerError, match=message) as caught:
            open_source([path, str(source)])  # before the first row is read
        assert str(source) in str(caught.value)
    for lines in (path, "-"):
        with pytest.raises(DeeplayerError, match="own expressions"):
            open_source([lines], expressions=[Expression("dog")])
    with pytest.raises(DeeplayerError, match="called '2'"):
        open_source([str(tmp_path / "images")], expressions=[Expression("dog", "2"), Expression("cat")])


def test_a_file_that_vanishes_or_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", ROW)
    rows = iter(open_source([path]))
    Path(path).unlink()
    with pytest.raises(DeeplayerError, match=r"f\.jsonl cannot be read: No such file"):
        next(rows)


def test_a_subfolder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DeeplayerError, match="locked cannot be read: Permission denied"):
        ids(tmp_path, expressions=[Expression("dog")])


@pytest.mark.parametrize(
    ("argument", "expression"),
    [
        ("the dog", Expression("the dog")),
        ("dog=the dog", Expression("the dog", "dog")),
        ("guide-dog.1=a=b", Expression("a=b", "guide-dog.1")),
        ("traffic light=the traffic light", Expression("the traffic light", "traffic light")),
        ("the sign (a=b)", Expression("the sign (a=b)")),
        ("caf\udce9", Expression("caf\\xe9")),
        ("cup=caf\udce9", Expression("caf\\xe9", "cup")),
        ("cup = a cup", Expression("a cup", "cup")),
        ("=x", Expression("=x")),
        ("собака=der Hund", Expression("der Hund", "собака")),
    ],
)
def test_expressions(argument: str, expression: Expression) -> None:
    assert parse_expression(argument) == expression


@pytest.mark.parametrize("argument", ["", " ", "dog=", "dog= "])
def test_an_expression_without_text(argument: str) -> None:
    with pytest.raises(DeeplayerError, match=f"-e '{argument}' names nothing to find"):
        parse_expression(argument)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_the_whole(count: int, tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", *(ROW.replace(b"a.", b"%d." % number) for number in range(20)))
    shards = [[row.id for row in open_source([path], shard=(index, count))] for index in range(count)]
    mixed = [row for group in zip_longest(*shards) for row in group if row is not None]
    assert mixed == ids(path)


def test_the_limit_counts_within_the_shard(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", *(ROW.replace(b"a.", b"%d." % number) for number in range(20)))
    assert [row.id for row in open_source([path], shard=(1, 3), limit=2)] == ["data/f.jsonl:2", "data/f.jsonl:5"]


def test_an_id_that_comes_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", named("a"), named("b"), ROW, named("b"))
    with pytest.raises(DeeplayerError, match=r"id 'b' comes twice, at data/f\.jsonl:2 and data/f\.jsonl:4"):
        count_rows(open_source([path]))
    rows = list(fail_repeated(open_source([path])))
    assert [row.id for row in rows] == ["a", "b", "data/f.jsonl:3", "data/f.jsonl:4"]
    assert isinstance(rows[3], BadRequest) and rows[3].error.kind == "duplicate_id" and "'b'" in rows[3].error.message


def test_the_rows_that_are_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", named("a"), named("b"), named("c"))
    assert count_rows(open_source([path]), lambda row: row.id != "b") == (3, 2)


def test_images_stay_inside_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.jpg"
    (root / "sub").mkdir(parents=True)
    outside.touch()
    (root / "link.jpg").symlink_to(outside)
    (root / "sub" / "up").symlink_to(tmp_path)
    images = ["a.jpg", "sub/../a.jpg", "../outside.jpg", str(outside), "link.jpg", "sub/up/outside.jpg"]
    path = write(tmp_path / "f.jsonl", *(ROW.replace(b"a.jpg", image.encode()) for image in images))
    rows = list(open_source([path], image_root=root))
    assert [type(row) for row in rows] == [Request, Request, *[BadRequest] * 4]
    assert {row.error.kind for row in rows if isinstance(row, BadRequest)} == {"image_outside"}
    assert all(isinstance(row, Request) for row in open_source([path], image_root=root, confined=False))
    assert all(isinstance(row, Request) for row in open_source([path]))


def test_shard_argument() -> None:
    assert parse_shard("0/4") == (0, 4)
    for argument in ("4/4", "0/0", "1", "a/b", "-1/4", "1/4/2", "", "٣/4"):
        with pytest.raises(DeeplayerError, match="i/n"):
            parse_shard(argument)


@pytest.mark.parametrize("has_a_name", [False, True])
def test_rows_of_a_pipe_come_as_they_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_a_name: bool
) -> None:
    """Blank lines, and rows of other shards, are none; what has come need not wait for what is behind them."""
    fifo = tmp_path / "pipe.jsonl"
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDWR)
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(os.fdopen(os.open(fifo, os.O_RDONLY), "rb")))
    rows = ArrivingRows(open_source([str(fifo) if has_a_name else "-"], shard=(0, 2), limit=3))
    for number in range(3):
        assert not rows.ready()
        for row_id in (f"{number}", f"of another shard {number}"):
            os.write(descriptor, named(row_id).replace(b"a.jpg", row_id.encode()) + b"\n\n")
        assert next(rows).id == f"{number}"
    assert list(rows) == [], "the limit is the end"
    os.close(descriptor)


def test_a_linked_file_of_rows_stays_in_the_image_root(tmp_path: Path) -> None:
    write(tmp_path / "away" / "r.jsonl", ROW)
    write(tmp_path / "here" / "rows" / "own.jsonl", ROW)
    (tmp_path / "here" / "rows" / "link.jsonl").symlink_to(tmp_path / "away" / "r.jsonl")
    source = tmp_path / "here" / "rows"
    with pytest.raises(DeeplayerError, match=r"link\.jsonl is a link that leaves --image-root .*here"):
        ids(source, image_root=tmp_path / "here")
    assert len(ids(source)) == len(ids(source, image_root=tmp_path)) == 2
    assert len(ids(source, image_root=tmp_path / "here", confined=False)) == 2
