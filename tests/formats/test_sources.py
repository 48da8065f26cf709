"""What is clearly in another format than requests, and what is not."""

from __future__ import annotations

import os

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.importing import ImportOptions
from deeplayer_cli.formats.imports.source import foreign_title, open_imports
from deeplayer_cli.schema import BadRequest
from tests.formats.layouts import LAYOUTS, NAMES, jpeg, json_lines, write_csv, write_internvl


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_but_requests_is_told_apart(name, tmp_path):
    title = foreign_title(LAYOUTS[name][0](tmp_path), None)
    assert (title is None) == (name == "requests")


@pytest.mark.parametrize(
    "rows",
    [
        [{"image": "a.jpg", "expression": "x"}],
        [{"image": "a.jpg"}, {"image": "a.jpg", "expression": "x"}],  # the first row is merely wrong
        [{"image": "a.jpg", "expression": "x", "bbox": [9, 9, 3, 3]}],
        [{"id": 1, "sent": "x", "image": "a.jpg"}],
        [{"image": "a.jpg"}],
        [],
        [[1, 2]],
    ],
)
def test_rows_that_ground_reads_or_refuses_itself(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json_lines(rows))
    assert foreign_title(path, None) is None


def test_internvl_is_read_as_it_is_where_its_images_lie(tmp_path):
    path = write_internvl(tmp_path)
    assert foreign_title(path, None) == "InternVL JSON Lines, and its images are not where its rows say"
    image = tmp_path / "data" / "coco" / "train2014" / NAMES[0]
    image.parent.mkdir(parents=True)
    image.write_bytes(jpeg(0))
    assert foreign_title(path, None) is None and foreign_title(path, tmp_path) is None
    assert foreign_title(path, tmp_path / "elsewhere") is not None


def test_pipes_and_missing_files_are_not_looked_at(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "gone", "-"):
        assert foreign_title(tmp_path / name, None) is None
    for name, reason in (("pipe", "is a pipe"), ("gone", "does not exist")):
        with pytest.raises(DeeplayerError, match=reason):
            open_imports([tmp_path / name], ImportOptions())


def test_rows_can_be_read_again_in_shards_and_warn_once(tmp_path):
    said: list[str] = []
    path = write_internvl(tmp_path)
    requests = open_imports([path], ImportOptions(), warn=said.append)
    first = list(requests)
    assert requests.repeatable and [row.id for row in first] == [
        f"{tmp_path.name}/{path.name}:{n}" for n in range(1, 6)
    ]
    assert list(requests) == first and len(said) == 2, "the count of the split, and images that are missing"
    shards = [list(open_imports([path], ImportOptions(), shard=(n, 2), warn=said.append)) for n in range(2)]
    assert sorted(row.id for shard in shards for row in shard) == [row.id for row in first]
    assert [row.id for row in open_imports([path], ImportOptions(), limit=2)] == [row.id for row in first[:2]]


def test_images_outside_of_a_given_folder_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(0))
    (tmp_path / "images" / NAMES[0]).symlink_to(tmp_path / "secret.jpg")
    options = ImportOptions(images=tmp_path / "images", confined=True)
    rows = list(open_imports([write_csv(tmp_path)], options))
    assert {row.error.kind for row in rows[:3] if isinstance(row, BadRequest)} == {"image_outside"}
    rows = list(open_imports([write_csv(tmp_path)], ImportOptions(images=tmp_path / "images")))
    assert rows[0].path == tmp_path / "images" / NAMES[0]


def test_missing_images_name_the_way_out(tmp_path):
    rows = list(open_imports([write_internvl(tmp_path)], ImportOptions()))
    assert rows[0].hint.startswith("--image-root FOLDER is searched")
    assert rows[0].image == f"data/coco/train2014/{NAMES[0]}"
