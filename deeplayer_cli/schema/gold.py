"""Gold boxes: how a row's four numbers become a box in pixels, and what speaks against that reading."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from deeplayer_cli.boxes import BOX_FORMATS, RELATIVE_FORMATS, to_xyxy
from deeplayer_cli.errors import RowError
from deeplayer_cli.schema.values import four_numbers, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.boxes import Box, BoxFormat, Resolution

_MEANS = {
    "xyxy": "[x1, y1, x2, y2] with x1 < x2 and y1 < y2",
    "xywh": "[x, y, width, height] with a positive size",
    "cxcywh": "[cx, cy, width, height] with a positive size",
    "per-mille": "[x1, y1, x2, y2] in thousandths of the image with x1 < x2 and y1 < y2",
    "unit": "[x1, y1, x2, y2] in fractions of the image with x1 < x2 and y1 < y2",
}
_OFTEN, _NEARLY_ALL = 0.25, 0.9
_SEVERAL = 3  # boxes; fewer can be wrong one by one
_ROUNDING = 1.0  # pixel, by which corners may differ that mean one box

CORNER_NAMES: Mapping[tuple[str, ...], BoxFormat] = {
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("x", "y", "w", "h"): "xywh",
    ("cx", "cy", "w", "h"): "cxcywh",
}
"""Fields of single numbers, which say by their names how a box is written."""


class WrittenGold(NamedTuple):
    """A gold box as its row writes it.

    Attributes:
        numbers: the four numbers, in any format.
        resolution_wh: the image's width and height as the row states them.
        path: of the image file, if the row names one.
    """

    numbers: Box
    resolution_wh: Resolution | None
    path: Path | None


@dataclass(frozen=True, slots=True)
class GoldReader:
    """Reads the gold boxes of rows.

    Attributes:
        box_format: how they are written; None if this is not known: they are then corners in pixels, and
            `BoxFormatCheck` may speak against it.
        size_of: returns width and height of an image file in pixels or raises a ``RowError``, for rows that do not
            state them; None if there are no files.
    """

    box_format: BoxFormat | None = None
    size_of: Callable[[Path], Resolution] | None = None

    def read(self, written: WrittenGold) -> Box:
        """Return a box as corners in pixels of the stored image.

        Raises:
            RowError: ``bad_box``: the numbers are no box; ``box_without_size``: the size of the image is not known.
        """
        box_format = self.box_format or "xyxy"
        if not _has_area(written.numbers, box_format):
            way_out = "" if self.box_format else "; --box-format reads boxes that are written otherwise"
            raise RowError("bad_box", f"box must be {_MEANS[box_format]}, not {show(list(written.numbers))}{way_out}")
        resolution_wh = written.resolution_wh
        if resolution_wh is None and box_format in RELATIVE_FORMATS:
            try:
                if self.size_of is not None and written.path is not None:
                    resolution_wh = self.size_of(written.path)
            except RowError as error:
                raise RowError("box_without_size", f"its box needs the image's size: {error}") from error
        try:
            return to_xyxy(written.numbers, box_format, resolution_wh)
        except ValueError as error:
            raise RowError("box_without_size", f"{error}: state them in the row") from error


def read_numbers(value: object) -> Box:
    """Read four finite numbers.

    Raises:
        RowError: ``bad_box``: the value is something else.
    """
    try:
        return four_numbers("box", value)
    except ValueError as error:
        raise RowError("bad_box", str(error)) from error


def refuse_other_corners(box: Box, fields: Mapping[str, object]) -> None:
    """Refuse a row whose fields ``x1, y1, x2, y2`` or ``xmin, ymin, xmax, ymax`` are another box than its box.

    The sizes ``w, h`` can be those of the image, so that other names are not looked at.

    Args:
        box: corners in pixels.
        fields: the row's other fields; numbers may be text, as in tables.

    Raises:
        RowError: ``bad_box``: a corner differs by more than a pixel.
    """
    for names, box_format in CORNER_NAMES.items():
        if box_format != "xyxy" or not fields.keys() >= set(names):
            continue
        written = [fields[name] for name in names]
        with suppress(TypeError, ValueError):  # they are no numbers, and so no box
            corners = [float(number) for number in written]  # type: ignore[arg-type]
            if not _agree(box, corners):
                message = f"box is {show(list(box))} in pixels, but {', '.join(names)} are {show(written)}"
                way_out = "remove one of the two, or say with --box-format how box is written"
                raise RowError("bad_box", f"{message}: {way_out}")


def refuse_other_box(box: Box, written: WrittenGold, other: object, reader: GoldReader) -> None:
    """Refuse a row whose field ``bbox`` is another box than its box.

    Args:
        box: corners in pixels.
        written: the same box as the row writes it.
        other: the field ``bbox``; None if the row has none.
        reader: has read the box, and reads the other.

    Raises:
        RowError: ``bad_box``: a corner differs by more than a pixel, or ``other`` is no box.
    """
    if other is None:
        return
    with suppress(RowError):
        if _agree(box, reader.read(written._replace(numbers=read_numbers(other)))):
            return
    raise RowError("bad_box", f"box is {show(list(written.numbers))}, but bbox is {show(other)}: remove one of the two")


def _agree(box: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(one - another) <= _ROUNDING for one, another in zip(box, other, strict=True))


@dataclass
class BoxFormatCheck:
    """Counts which formats the gold boxes of a file can be in.

    Attributes:
        box_format: the one that they are read in.
        n: number of boxes so far.
    """

    box_format: BoxFormat = "xyxy"
    n: int = 0
    _fits: Counter[BoxFormat] = field(default_factory=Counter)

    def add(self, numbers: Box, resolution_wh: Resolution | None) -> None:
        """Look at a box; without the image's size, it cannot leave the image."""
        self.n += 1
        self._fits.update(one for one in BOX_FORMATS if _fits(numbers, one, resolution_wh))

    def possible(self) -> list[BoxFormat]:
        """The formats that nearly all boxes can be in."""
        return [one for one in BOX_FORMATS if self._fits[one] >= _NEARLY_ALL * self.n]

    def doubt(self) -> str | None:
        """Return a sentence if many boxes cannot be what they are read as, and nearly all can be something else."""
        n_wrong = self.n - self._fits[self.box_format]
        others = [one for one in self.possible() if one != self.box_format]
        if not others or n_wrong <= _OFTEN * self.n or (n_wrong < _SEVERAL and others != ["unit"]):
            return None
        if "unit" in others:
            others = ["unit"]
        names = " or ".join(f"--box-format {one}" for one in others)
        return (
            f"{n_wrong} of {self.n} gold boxes cannot be {_MEANS[self.box_format].split(' with ')[0]}"
            f"{'' if self.box_format in RELATIVE_FORMATS else ' in pixels'}, and {self._fits[others[0]]} can be "
            f"{' or '.join(others)}: give {names}, or --box-format {self.box_format} if they are right"
        )


def _fits(numbers: Box, box_format: BoxFormat, resolution_wh: Resolution | None) -> bool:
    """Whether four numbers are a box within an image in a format; a little over the edge is rounding."""
    in_unit = min(numbers) >= 0 and max(numbers) <= 1.001 and any(number % 1 for number in numbers)
    if not _has_area(numbers, box_format) or in_unit != (box_format == "unit"):
        return False
    if box_format == "per-mille":
        return resolution_wh is not None and min(numbers) >= 0 and max(numbers) <= 1000
    if box_format == "unit" or resolution_wh is None:
        return True
    x1, y1, x2, y2 = to_xyxy(numbers, box_format)
    slack = 1 + 0.01 * max(resolution_wh)
    return x1 >= -slack and y1 >= -slack and x2 <= resolution_wh[0] + slack and y2 <= resolution_wh[1] + slack


def _has_area(numbers: Box, box_format: BoxFormat) -> bool:
    a, b, c, d = numbers
    return c > 0 and d > 0 if box_format in ("xywh", "cxcywh") else a < c and b < d


def check_gold(gold: Box, resolution_wh: Resolution) -> None:
    """Refuse a gold box that lies wholly outside its image: it belongs to another image or another scale.

    A box may lie partly outside: COCO's boxes do by rounding, amodal boxes on purpose.

    Raises:
        RowError: ``box_outside``: the box and the image do not overlap.
    """
    width, height = resolution_wh
    x1, y1, x2, y2 = gold
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise RowError("box_outside", f"box {list(gold)} lies outside the image of {width} x {height} pixels")
