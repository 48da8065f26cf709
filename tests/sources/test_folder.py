"""Folders as people and strangers leave them: links, other formats, text files that are no expressions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.formats import FORMATS, SUFFIXES
from deeplayer_cli.schema import BadRequest, Request
from deeplayer_cli.sources import Expression, open_source, parse_expressions
from deeplayer_cli.sources.expression_file import MAX_BYTES, MAX_LINES

if TYPE_CHECKING:
    from pathlib import Path

DOG = [Expression("dog")]


def picture(path: Path, *expressions: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, format="PNG")
    if expressions:
        path.with_suffix(".txt").write_text("\n".join(expressions))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fold").mkdir()
    return tmp_path / "fold"


def images(folder: Path, **settings: object) -> list[str | None]:
    return [row.image for row in open_source([str(folder)], expressions=DOG, **settings)]  # type: ignore[arg-type]


def test_linked_subfolders_are_read_once_and_loops_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(folder / "a" / "1.png")
    picture(tmp_path / "ext" / "2.png")
    (folder / "a" / "link").symlink_to(tmp_path / "ext")
    (folder / "again").symlink_to(tmp_path / "ext")
    (folder / "loop").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "self").symlink_to(folder / "self")
    (tmp_path / "ext" / "round").symlink_to(tmp_path / "ext")
    assert images(folder) == ["fold/a/1.png", "fold/a/link/2.png"]
    (said,) = [message for message in caplog.messages if "linked folder" in message]
    assert "a/link/round, again, loop and 1 more" in said


def test_a_linked_subfolder_that_leaves_the_root_is_a_bad_row(folder: Path, tmp_path: Path) -> None:
    picture(folder / "1.png")
    picture(tmp_path / "ext" / "2.png", "secret")
    (folder / "link").symlink_to(tmp_path / "ext")
    (folder / "out.png").symlink_to(tmp_path / "ext" / "2.png")
    for expressions in (DOG, [Expression("cat", "cat")]):
        rows = list(open_source([str(folder)], expressions=expressions, image_root=folder))
        assert [(row.image, type(row)) for row in rows] == [
            ("fold/1.png", Request), ("fold/out.png", BadRequest), ("fold/link", BadRequest),
        ]  # fmt: skip
        assert {row.error.kind for row in rows[1:] if isinstance(row, BadRequest)} == {"image_outside"}
    assert images(folder, image_root=folder, confined=False) == ["fold/1.png", "fold/out.png", "fold/link/2.png"]


def test_what_is_skipped_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.JFIF", "._a.png", ".hidden.png", ".git/x.png", "__MACOSX/._a.png"):
        picture(folder / name)
    for name in ("c.jp2", "d.JXL", "e.j2k", "f.jp2", "g.jxl", "Thumbs.db", "a.txt", "classes.txt"):
        (folder / name).touch()
    assert images(folder) == ["fold/a.png", "fold/b.JFIF"]
    unread, others = caplog.messages
    assert "c.jp2, d.JXL, e.j2k and 2 more skipped: .j2k, .jp2, .jxl is not read" in unread
    assert "convert to JPEG or PNG" in unread
    assert "2 files that are no images skipped" in others


@pytest.mark.parametrize("suffix", [".jp2", ".J2K", ".jxl", ".heic", ".HEIF", ".avif"])
def test_formats_that_are_not_read_are_named(folder: Path, suffix: str) -> None:
    if suffix.lower() in SUFFIXES:
        pytest.skip(f"{suffix} is read here")
    (folder / f"x{suffix}").touch()
    for source in (folder, folder / f"x{suffix}"):
        with pytest.raises(DeeplayerError, match=f"x{suffix}.*convert") as raised:
            open_source([str(source)], expressions=DOG if source == folder else ())
        assert ("pip install pillow-heif" in str(raised.value)) == suffix.lower().startswith(".hei")


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_formats_that_depend_on_what_is_installed(folder: Path, name: str) -> None:
    if name not in FORMATS:
        pytest.skip(f"no decoder of {name} is installed")
    path = folder / {"AVIF": "a.avif", "HEIF": "a.HEIC"}[name]
    Image.new("RGB", (20, 10)).save(path, format=name)
    assert images(folder) == [f"fold/{path.name}"]
    assert open_image(path).size == (20, 10)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL", ".NDJSON"])
def test_rows_in_a_folder_are_found(folder: Path, suffix: str) -> None:
    (folder / f"x{suffix}").write_text('{"image": "a.png", "expression": "dog"}\n')
    (folder / f"._x{suffix}").write_bytes(b"\0")
    assert [row.id for row in open_source([str(folder)])] == [f"fold/x{suffix}:1"]


@pytest.mark.parametrize(
    "line", ["0 0.381563 0.361181 0.380001 0.410763", "1 0.68 0.67 0.19 0.24", "7 .5 0 1 1.0 0.25 1e-5"]
)
def test_labels_of_yolo_are_no_expressions(folder: Path, line: str) -> None:
    picture(folder / "a.png", line, "", line)
    (row,) = open_source([str(folder)])
    assert isinstance(row, BadRequest) and "a.txt holds YOLO labels" in row.error.message and "-e" in row.error.message
    picture(folder / "a.png", "2 dogs at 0.5", line)
    assert [row.expression for row in open_source([str(folder)])] == ["2 dogs at 0.5", line]


def test_lines_end_as_on_any_system(folder: Path) -> None:
    picture(folder / "a.png").with_suffix(".txt").write_bytes(b"\xef\xbb\xbfone\rtwo\r\nthree\n\n four ")
    assert [row.expression for row in open_source([str(folder)])] == ["one", "two", "three", "four"]


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def large(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(300 * 2**20)


def many_lines(path: Path) -> None:
    path.write_text("x\n" * (MAX_LINES + 1))


def a_folder(path: Path) -> None:
    path.mkdir()


def not_utf8(path: Path) -> None:
    path.write_bytes(b"dog\ncaf\xe9\n")


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (zero, "b.txt is not a regular file"),
        (fifo, "b.txt is not a regular file"),
        (large, f"b.txt is larger than {MAX_BYTES:,} bytes"),
        (many_lines, "b.txt has 1,001 lines"),
        (a_folder, "b.txt cannot be read"),
        (not_utf8, "b.txt:2 is not UTF-8"),
        (loop, "b.txt cannot be read"),
    ],
)
def test_a_strangers_text_file_costs_its_image_only(folder: Path, make: object, said: str) -> None:
    for name in "abc":
        picture(folder / f"{name}.png", *(["dog"] if name != "b" else []))
    make(folder / "b.txt")  # type: ignore[operator]
    first, bad, last = open_source([str(folder)])
    assert isinstance(first, Request) and isinstance(last, Request) and isinstance(bad, BadRequest)
    assert bad.error.kind == "no_expression" and said in bad.error.message
    assert bad.error.message.startswith("fold/b.png: ")


def test_a_text_file_that_leaves_the_root_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the password\n")
    picture(folder / "a.png").with_suffix(".txt").symlink_to(tmp_path / "secret")
    (row,) = open_source([str(folder)], image_root=folder)
    assert isinstance(row, BadRequest) and (row.error.kind, row.expression) == ("image_outside", None)
    (row,) = open_source([str(folder)], image_root=folder, confined=False)
    assert row.expression == "the password"


def test_expressions_in_a_file(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_bytes(b"\xef\xbb\xbftraffic light=the traffic light\r\n\r\nthe dog\n")
    assert parse_expressions(["cat=a cat", f"@{labels}"]) == [
        Expression("a cat", "cat"), Expression("the traffic light", "traffic light"), Expression("the dog"),
    ]  # fmt: skip
    picture(folder / "a.png")
    rows = list(open_source([str(folder)], expressions=parse_expressions([f"@{labels}"])))
    assert [(row.id, row.meta) for row in rows] == [
        ("fold/a.png#traffic light", {"label": "traffic light"}), ("fold/a.png#2", {}),
    ]  # fmt: skip
    labels.write_text(" \n")
    for argument, said in {
        f"@{labels}": "is empty",
        "@": "cannot be read|not a regular",
        "@no.txt": "^-e @no.txt: no expressions: no.txt does not exist$",
    }.items():
        with pytest.raises(DeeplayerError, match=said):
            parse_expressions([argument])
