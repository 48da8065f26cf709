"""The images of rows are found where the run found them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.files import content_digest
from deeplayer_cli.report.row_images import RowImages
from deeplayer_cli.schema import Prediction, in_text
from deeplayer_cli.sinks import RunRecord

if TYPE_CHECKING:
    from pathlib import Path


def save(path: Path, colour: str = "red", size: tuple[int, int] = (30, 20), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, colour).save(path, exif=exif)
    return path


def row_of(image: str, path: Path | None, source: str = "", **fields) -> Prediction:
    digest = None if path is None else content_digest(path)
    return Prediction("a", image, "dog", "ok", image_id=digest, source=source, **fields)


def record(predictions: Path, **circumstances) -> None:
    settings = {"exif_transpose": circumstances.pop("exif_transpose", False)}
    RunRecord(settings, circumstances).save(predictions)


def test_paths_start_where_the_run_started_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside = save(tmp_path / "data/images/1.png")
    in_folder = save(tmp_path / "photos/sub/1.png", "blue")
    rooted = save(tmp_path / "root/r.png", "green")
    predictions = tmp_path / "out" / "boxes.jsonl"
    predictions.parent.mkdir()
    record(predictions, source=["data/rows.jsonl", "photos", "photos/sub/1.png"], image_root="root")
    images = RowImages.from_predictions(predictions)
    found = [
        images.find(row_of("images/1.png", beside, "data/rows.jsonl:1")),
        images.find(row_of("photos/sub/1.png", in_folder, "photos/sub/1.png#1")),
        images.find(row_of("sub/1.png", in_folder, "sub/1.png#1")),
        images.find(row_of("r.png", rooted, "data/rows.jsonl:2")),
        images.find(row_of(str(rooted), rooted, "data/rows.jsonl:3")),
    ]
    assert [path.resolve() for path in found] == [beside, in_folder, in_folder, rooted, rooted]


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_a_file_whose_name_is_not_utf8_is_found_by_its_escaped_name(tmp_path):
    path = save(tmp_path / os.fsdecode(b"caf\xe9\xff.png"))
    row = row_of(in_text(path.name), path)
    assert row.image == r"caf\xe9\xff.png"
    images = RowImages.from_predictions(tmp_path / "boxes.jsonl")
    assert images.find(row) == path and images.open(row).size == (30, 20)
    escaped = save(tmp_path / str(row.image))  # a file that has this name as it is
    assert images.find(row) == escaped


def test_equal_names_in_two_sources_are_told_apart(tmp_path):
    paths = [save(tmp_path / name / "images/1.png", colour) for name, colour in (("one", "red"), ("two", "blue"))]
    predictions = tmp_path / "boxes.jsonl"
    record(predictions, source=[str(tmp_path / "one/rows.jsonl"), str(tmp_path / "two/rows.jsonl")])
    images = RowImages.from_predictions(predictions)
    for path, name in zip(paths, ("one", "two"), strict=True):
        assert images.find(row_of("images/1.png", path)) == path  # by content
        assert images.find(row_of("images/1.png", None, f"{name}/rows.jsonl:1")) == path  # by source


def test_without_a_record_paths_start_from_the_predictions(tmp_path):
    path = save(tmp_path / "images/1.png")
    images = RowImages.from_predictions(tmp_path / "boxes.jsonl")
    assert images.find(row_of("images/1.png", path)) == path
    with pytest.raises(RowError, match=r"row a: images/2\.png is not found: --image-root"):
        images.find(row_of("images/2.png", None))
    for odd in ("\0", "x" * 5000, "", "."):
        with pytest.raises(RowError, match="not found"):
            images.find(row_of(odd, None))
    with pytest.raises(RowError, match="names no image"):
        images.find(Prediction("a", None, None, "error"))


def test_an_image_of_other_content_is_refused(tmp_path):
    path = save(tmp_path / "1.png")
    row = row_of("1.png", path)
    save(path, "blue")
    with pytest.raises(RowError, match=r"1\.png is not the image that was grounded"):
        RowImages.from_predictions(tmp_path / "boxes.jsonl").find(row)


def test_an_image_root_confines(tmp_path):
    inside, outside = save(tmp_path / "root/1.png"), save(tmp_path / "2.png", "blue")
    images = RowImages.from_predictions(tmp_path / "boxes.jsonl", tmp_path / "root")
    assert images.find(row_of("1.png", inside)) == inside
    assert images.find(row_of("elsewhere/1.png", inside)) == inside  # a folder of images that has moved
    for image in ("../2.png", str(outside), "2.png"):
        with pytest.raises(RowError, match="lies outside of --image-root"):
            images.find(row_of(image, outside))


@pytest.mark.parametrize("said", [True, False, None])
def test_the_frame_is_that_of_the_row(tmp_path, said):
    path = save(tmp_path / "1.jpg", size=(30, 20), orientation=6)
    if said is not None:
        record(tmp_path / "boxes.jsonl", exif_transpose=said)
    images = RowImages.from_predictions(tmp_path / "boxes.jsonl")
    for turned, (width, height) in ((False, (30, 20)), (True, (20, 30))):
        row = row_of("1.jpg", path, width=width, height=height)
        if said in (turned, None):
            assert images.open(row).size == (width, height)
        else:
            with pytest.raises(RowError, match=f"but its row says {width} x {height}"):
                images.open(row)
