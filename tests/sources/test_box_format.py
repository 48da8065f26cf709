"""Gold boxes that cannot be what they are read as end a run before its work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import orjson
import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.schema import GoldReader
from deeplayer_cli.sources import open_source
from deeplayer_cli.sources.box_format import watched
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

XYWH = [[60, 40, 30, 20], [50, 10, 40, 80], [70, 30, 25, 25], [5, 5, 90, 80]]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Boxes as xywh about an image of 100 x 100 pixels, whose size no row states."""
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b"".join(
            orjson.dumps({"image": "a.png", "expression": f"thing {n}", "box": box}, option=orjson.OPT_APPEND_NEWLINE)
            for n, box in enumerate(XYWH)
        )
    )
    return path


def test_a_file_is_refused_before_its_first_row(rows: Path) -> None:
    with pytest.raises(
        DeeplayerError, match=r"rows\.jsonl: 3 of 4 gold boxes cannot .* 4 can be xywh: give --box-format"
    ):
        open_source([str(rows)])


@pytest.mark.parametrize("box_format", ["xywh", "xyxy"])
def test_who_says_so_is_believed(rows: Path, box_format: str) -> None:
    read = list(open_source([str(rows)], gold_reader=GoldReader(box_format, read_size)))  # type: ignore[arg-type]
    assert [row.gold for row in read][3] == ((5, 5, 95, 85) if box_format == "xywh" else (5, 5, 90, 80))
    assert sum(row.gold is None for row in read) == (3 if box_format == "xyxy" else 0)


def test_a_file_is_judged_by_all_of_its_first_rows(rows: Path) -> None:
    rows.write_bytes(rows.read_bytes() * 10)
    with pytest.raises(DeeplayerError, match=r"30 of 40 gold boxes"):
        open_source([str(rows)])


def test_a_stream_ends_where_it_is_clear(rows: Path) -> None:
    passed = []
    with pytest.raises(DeeplayerError, match="give --box-format xywh"):
        passed.extend(watched(list(JsonLines(rows).rows()) * 100, "stdin"))
    many = 0
    with pytest.raises(DeeplayerError, match="15 of 20 gold boxes"):
        for _ in watched(list(JsonLines(rows).rows()) * 100, "stdin"):
            many += 1
    assert many == 19


def test_fractions_become_pixels_of_the_images_own_size(rows: Path) -> None:
    rows.write_bytes(b'{"image": "a.png", "expression": "x", "box": [0.1, 0.2, 0.5, 0.75]}\n')
    with pytest.raises(DeeplayerError, match=r"1 of 1 gold boxes .* give --box-format unit"):
        open_source([str(rows)])
    (read,) = open_source([str(rows)], gold_reader=GoldReader("unit", read_size))
    assert read.gold == (10, 20, 50, 75)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("by_stdin", [False, True])
def test_boxes_are_judged_in_the_frame_of_the_run(tmp_path: Path, *, turned: bool, by_stdin: bool) -> None:
    """With --exif-transpose, boxes in the turned image are right, though they lie outside of the stored one."""
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (100, 300)).save(tmp_path / "a.jpg", exif=exif)
    path = tmp_path / "rows.jsonl"
    row = {"image": str(tmp_path / "a.jpg"), "expression": "a", "box": [200, 10, 290, 60]}
    path.write_bytes(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) * 8)
    size_of = partial(read_size, exif_transpose=turned)

    def read() -> int:
        if by_stdin:
            return sum(1 for _ in watched(list(JsonLines(path).rows()), "stdin", size_of))
        return sum(1 for _ in open_source([str(path)], gold_reader=GoldReader(size_of=size_of)))

    if turned:
        assert read() == 8
    else:
        with pytest.raises(DeeplayerError, match=r"as EXIF turns them: use `ground --exif-transpose`, or give"):
            read()
