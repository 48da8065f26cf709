"""What every format is read into: one expression about one image, with its box as the file writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deeplayer_cli.boxes import BoxFormat, Resolution
    from deeplayer_cli.errors import RowError


class EarlierImage(NamedTuple):
    """The image of an earlier row of the same file, by that row's ``image_key``."""

    image_key: str


@dataclass(frozen=True)
class ImportedExample:
    """One expression about one image. What the file has in place of a value is kept: a row with it is refused later.

    Attributes:
        image: its path, as the file writes it, or the bytes of an image inside the file, or an `EarlierImage`.
        expression: what to find.
        box: four numbers of the gold box; None without a box.
        resolution_wh: width and height as the file states them, if it does.
        image_name: a file name for an image that comes as bytes.
        image_key: what later rows call this row's image, if they can.
        meta: what else belongs to it, such as ``dataset``, ``split``, ``ref_id``.
        id: the row's own id, if it has one.
        line: of a text file, from 1; None in other files.
        box_format: how the box is written, if the row itself says so, by the names of its columns.
        second_box: four numbers, if the row writes a box twice; they must be the same box.
    """

    image: object
    expression: object
    box: object = None
    resolution_wh: Resolution | None = None
    image_name: str | None = None
    image_key: str | None = None
    meta: dict[str, object] = field(default_factory=dict)
    id: object = None
    line: int | None = None
    box_format: BoxFormat | None = None
    second_box: object = None


@dataclass(frozen=True)
class BadExample:
    """A row of a file that cannot be read.

    Attributes:
        error: what is wrong.
        line: as in `ImportedExample`.
    """

    error: RowError
    line: int | None = None


Example = ImportedExample | BadExample
