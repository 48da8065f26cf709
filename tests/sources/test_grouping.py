"""Rows of one image, taken together."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import parse_request
from deeplayer_cli.sources import by_image


@pytest.fixture
def rows(tmp_path):
    def row(index):
        return parse_request({"image": f"{index // 3}.png", "expression": "x"}, f"row {index}", index, tmp_path)

    return [row(index) for index in range(9)]


def test_neighbours_about_one_image_are_taken_together(rows, tmp_path):
    bad = parse_request({"image": "0.png"}, "row 99", 99, tmp_path)
    items = [*rows[:3], bad, *rows[3:9]]
    groups = list(by_image(items, lambda row: row))
    assert [[row.id for row in group] for group in groups] == [[0, 1, 2, 99], [3, 4, 5], [6, 7, 8]]
    assert list(by_image([], lambda row: row)) == []


def test_a_folder_whose_name_is_not_text_is_a_folder(rows, tmp_path):
    named = [replace(row, path=tmp_path / os.fsdecode(b"\xff") / row.path.name) for row in rows[:6]]
    assert [len(group) for group in by_image(named, lambda row: row)] == [3, 3]


def test_an_image_that_comes_back_is_refused(rows):
    reason = r"row 2: the rows about 0\.png do not follow each other: .* sort the rows by image"
    with pytest.raises(DeeplayerError, match=reason):
        list(by_image([rows[0], rows[3], rows[2]], lambda row: row))
