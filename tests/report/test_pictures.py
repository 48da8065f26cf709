"""Rows drawn into files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.report.lettering import Lettering
from deeplayer_cli.report.pictures import Pictures, safe_name
from deeplayer_cli.report.row_images import RowImages
from deeplayer_cli.schema import Prediction

if TYPE_CHECKING:
    from pathlib import Path

IDS = st.text(max_size=150) | st.integers(-(2**63), 2**63 - 1)
NASTY = ["../../etc/passwd", "a/b", "a_b", "..", ".", "", "a\nb", "-rf", "1", 1, "é" * 300, "CON.png", "~", "a\0b"]


@given(IDS)
def test_names_are_safe(row_id) -> None:
    name = safe_name(row_id)
    assert name.isascii() and len(name) <= 100 and not set(name) & set("/\\\n\0 ") and name[0] not in ".-~"


@given(st.lists(IDS, max_size=20, unique_by=repr))
def test_different_ids_have_different_names(ids) -> None:
    assert len({safe_name(row_id) for row_id in [*ids, *NASTY]}) == len({repr(row_id) for row_id in [*ids, *NASTY]})


def test_an_id_that_is_a_name_keeps_it() -> None:
    assert [safe_name(row_id) for row_id in ("scene-0000-1", 17, "A.b_c")] == ["scene-0000-1", "17", "A.b_c"]
    assert safe_name("photos/requests.jsonl:12").startswith("photos_requests.jsonl_12-")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    return tmp_path


def drawer(folder: Path, output: Path, **options) -> Pictures:
    return Pictures(output, RowImages.from_predictions(folder / "boxes.jsonl"), Lettering(), **options)


def row(row_id: object, image: str = "photo.png") -> Prediction:
    return Prediction(row_id, image, "dog", "ok", (1, 1, 9, 9), ((1, 1, 9, 9),), width=40, height=30)


@pytest.mark.parametrize(("format", "suffix", "known"), [("png", ".png", "PNG"), ("jpeg", ".jpg", "JPEG")])
def test_every_row_gets_a_file_in_the_folder(folder, format, suffix, known):
    pictures = drawer(folder, folder / "out", format=format)
    for row_id in [*NASTY, "A_B"]:  # the last one is a_b on some file systems
        pictures.add(row(row_id))
    files = sorted((folder / "out").iterdir())
    assert pictures.summary() == f"{folder / 'out'}: {len(NASTY) + 1} pictures"
    assert len({file.name.casefold() for file in files}) == len(NASTY) + 1 and {file.suffix for file in files} == {
        suffix
    }
    with Image.open(files[0]) as picture:
        picture.load()
        assert picture.format == known


def test_a_row_that_cannot_be_drawn_is_counted(folder):
    pictures = drawer(folder, folder / "out")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    for image in ("missing.png", "photo.png", "broken.png", "other.png"):
        pictures.add(row(image, image))
    assert pictures.n_drawn == 1 and list(pictures.problems) == ["image_missing", "image_broken"]
    assert pictures.summary().endswith("out: 1 picture; rows not drawn: 2 image_missing, 1 image_broken")


def test_nothing_is_replaced_but_own_pictures(folder):
    drawer(folder, folder / "out").add(row("a"))
    with pytest.raises(DeeplayerError, match="--overwrite replaces it"):
        drawer(folder, folder / "out").add(row("a"))
    with pytest.raises(DeeplayerError, match="--overwrite replaces it"):
        drawer(folder, folder / "out").refuse("a")
    drawer(folder, folder / "out", overwrite=True).add(row("a"))
    for _ in range(2):
        drawer(folder, folder / "out", overwrite=True, format="jpeg").add(row("a"))
    info = PngInfo()
    info.add_text("comment", "by the sea")
    Image.new("RGB", (9, 9)).save(folder / "holiday.png", pnginfo=info)
    before = (folder / "holiday.png").read_bytes()
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    for row_id in ("holiday", "photo", "pipe", "folder"):
        with pytest.raises(DeeplayerError, match=r"was not drawn by deeplayer|is also an input"):
            drawer(folder, folder, overwrite=True).add(row(row_id))
    assert (folder / "holiday.png").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(folder):
    for output, problem in ((folder / "photo.png", "is not a folder"), (folder / "no/out", "there is no folder")):
        with pytest.raises(DeeplayerError, match=problem):
            drawer(folder, output).refuse_folder()
