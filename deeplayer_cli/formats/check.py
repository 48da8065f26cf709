"""Checks requests and their images without a model."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import RowError
from deeplayer_cli.formats.imports.splits import SplitCounts
from deeplayer_cli.images.decode import read_orientation, read_size
from deeplayer_cli.images.files import content_digest
from deeplayer_cli.schema import BadRequest, BoxFormatCheck, check_gold, check_resolution, in_text
from deeplayer_cli.schema.row_ids import Ids
from deeplayer_cli.sources.expression_file import is_yolo_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from deeplayer_cli.boxes import Box, BoxFormat, Resolution
    from deeplayer_cli.schema import Request

_NUMBERS_ONLY = re.compile(r"[\d\s.,;:\[\](){}eE+-]+")
_FILE_NAME = re.compile(r"\S+\.(?:jpe?g|png|webp|bmp|gif|tiff?|txt|xml|jsonl?|csv|npy)", re.IGNORECASE)
_LONG = 1000  # characters
_TINY = 2  # pixels
_OVER = 0.01  # of the image's side; less is rounding


@dataclass
class DataProblem:
    """Something that is wrong in several places.

    Attributes:
        kind: a stable name, such as ``image_missing``.
        count: how often.
        place: the first place: ``FOLDER/FILE:LINE`` of a row.
        message: about the first place.
    """

    kind: str
    count: int
    place: str
    message: str


@dataclass
class DataReport:
    """What was found.

    Attributes:
        rows: number of rows.
        images: number of different image files.
        boxes: number of rows with a gold box.
        turned: number of images whose EXIF orientation turns or mirrors them in other programs.
        problems: by kind, in the order in which they were found.
    """

    rows: int = 0
    images: int = 0
    boxes: int = 0
    turned: int = 0
    problems: dict[str, DataProblem] = field(default_factory=dict)

    def note(self, kind: str, place: str, message: str, count: int = 1) -> None:
        """Count a problem."""
        if kind in self.problems:
            self.problems[kind].count += count
        else:
            self.problems[kind] = DataProblem(kind, count, place, in_text(message))

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values."""
        counts = {"rows": self.rows, "images": self.images, "boxes": self.boxes, "turned": self.turned}
        return counts | {"problems": [asdict(problem) for problem in self.problems.values()]}


@dataclass(frozen=True)
class _ImageFacts:
    size: Resolution
    orientation: int


class DataCheck:
    """Looks at one row after the other; what it remembers takes about 24 bytes for each row and each image.

    Args:
        box_format: how the gold boxes are written, if somebody or their file's format says so; None for corners in
            pixels, which is a problem if it is doubtful.
    """

    def __init__(self, box_format: BoxFormat | None = None) -> None:
        self._is_sure = box_format is not None
        self.report = DataReport()
        self._ids, self._rows, self._questions = Ids(), Ids(), Ids()
        self._paths, self._contents = Ids(), Ids()
        self._written = BoxFormatCheck()
        self._splits = SplitCounts()
        self._last: tuple[Path, _ImageFacts | RowError] | None = None
        self._first_box = ""

    def run(self, rows: Iterable[Request | BadRequest]) -> DataReport:
        """Check rows.

        Args:
            rows: requests, and rows that are none.
        """
        for row in rows:
            self._check(row)
        if not self._is_sure and (doubt := self._written.doubt()):
            self.report.note("box_format", self._first_box, doubt)
        if warnings := self._splits.warnings():
            self.report.note("split_count", "", "; ".join(warnings), len(warnings))
        return self.report

    def _check(self, row: Request | BadRequest) -> None:
        report = self.report
        report.rows += 1
        self._splits.add(row.meta, row.image, row.gold)
        report.boxes += row.written is not None
        if not self._ids.add(row.id):
            report.note("duplicate_id", row.where, f"id {row.id!r} occurred before")
        if row.expression is not None and (reason := odd_expression(row.expression)):
            report.note("odd_expression", row.where, f"expression {row.expression[:60]!r} {reason}")
        if isinstance(row, BadRequest):
            self._add_written(row, None)
            report.note(row.error.kind, row.where, row.error.message.removeprefix(f"{row.where}: "))
            return
        self._check_repeated(row)
        facts = self._image(row.path, row.where)
        if isinstance(facts, RowError):
            self._add_written(row, None)
            report.note(facts.kind, row.where, str(facts))
            return
        self._add_written(row, facts.size)
        try:
            check_resolution(row.resolution_wh, facts.size)
            if row.gold is not None:
                check_gold(row.gold, facts.size)
        except RowError as error:
            turned = facts.orientation > 4 and row.resolution_wh == facts.size[::-1]
            way_out = "; it is that of the turned image: run with --exif-transpose" if turned else ""
            report.note(error.kind, row.where, f"{error}{way_out}")
        else:
            if row.gold is not None:
                self._check_box(row.gold, facts.size, row.where)

    def _add_written(self, row: Request | BadRequest, size: Resolution | None) -> None:
        if row.written is not None:
            self._first_box = self._first_box or row.where
            self._written.add(row.written.numbers, size or row.written.resolution_wh)

    def _check_repeated(self, row: Request) -> None:
        question = orjson.dumps([in_text(row.path), row.expression]).decode()
        if not self._rows.add(f"{question}{row.gold}"):
            self.report.note("duplicate_row", row.where, "its image, expression and box occurred before")
        elif not self._questions.add(question):
            message = f"{row.expression[:60]!r} occurred before in this image, with another box or none"
            self.report.note("ambiguous", row.where, message)

    def _check_box(self, gold: Box, size: Resolution, where: str) -> None:
        x1, y1, x2, y2 = gold
        width, height = size
        if x2 - x1 < _TINY or y2 - y1 < _TINY:
            self.report.note("tiny_box", where, f"box {list(gold)} is less than {_TINY} pixels wide or high")
        slack_x, slack_y = 1 + _OVER * width, 1 + _OVER * height
        if x1 < -slack_x or y1 < -slack_y or x2 > width + slack_x or y2 > height + slack_y:
            self.report.note("box_over_edge", where, f"box {list(gold)} leaves its image of {width} x {height} pixels")

    def _image(self, path: Path, where: str) -> _ImageFacts | RowError:
        """The size and orientation of an image, or what is wrong with it; a new image is compared with all others."""
        if self._last is None or self._last[0] != path:
            try:
                facts: _ImageFacts | RowError = _ImageFacts(read_size(path), read_orientation(path))
            except RowError as error:
                facts = error
            self._last = (path, facts)
            if self._paths.add(in_text(path)):
                self._add_image(path, where, facts)
        return self._last[1]

    def _add_image(self, path: Path, where: str, facts: _ImageFacts | RowError) -> None:
        self.report.images += 1
        if isinstance(facts, RowError):
            return
        if facts.orientation != 1:
            self.report.turned += 1
            width, height = facts.size
            self.report.note(
                "exif_orientation",
                where,
                f"{path.name} has EXIF orientation {facts.orientation}: it is read as stored, {width} x {height} "
                "pixels, and other programs turn or mirror it; --exif-transpose does too",
            )
        try:
            if not self._contents.add(content_digest(path)):
                self.report.note("duplicate_image", where, f"{path.name} is a copy of an image that occurred before")
        except RowError as error:
            self.report.note(error.kind, where, str(error))


def odd_expression(expression: str) -> str | None:
    """What an expression looks like in place of a description, as the end of a sentence; None if it looks like one."""
    text = expression.strip()
    if is_yolo_line(text):
        return "looks like a line of YOLO labels"
    if _NUMBERS_ONLY.fullmatch(text):
        return "holds numbers only"
    if _FILE_NAME.fullmatch(text):
        return "looks like the name of a file"
    if text.startswith(("{", "[", "<")) and text.endswith(("}", "]", ">")):
        return "looks like JSON or markup"
    return f"has more than {_LONG} characters" if len(text) > _LONG else None
