"""Thumbnails of the rows' images, as data URIs."""

from __future__ import annotations

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from deeplayer_cli.errors import RowError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deeplayer_cli.report.row_images import RowImages
    from deeplayer_cli.schema import Prediction

_QUALITY = 80  # of WebP, from 0 to 100


@dataclass(frozen=True, slots=True)
class Picture:
    """One image on the page, which all rows about it share.

    Attributes:
        name: as the rows write it.
        width: of the stored image, in pixels, which are the unit of its boxes; None if unknown.
        height: of the stored image, in pixels.
        source: the thumbnail as a data URI; None without one.
        problem: why there is no thumbnail, in one sentence; None if it was left out on purpose.
    """

    name: str
    width: int | None
    height: int | None
    source: str | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The picture as JSON values."""
        return {"name": self.name, "width": self.width, "height": self.height, "source": self.source}


def make_pictures(rows: Sequence[tuple[Prediction, Sequence[RowImages]]], side: int) -> Iterator[Picture]:
    """Make a thumbnail of each row's image, in order; threads decode several images at a time.

    Args:
        rows: one row for each image, with where to look for it.
        side: the longer side of a thumbnail, in pixels; smaller images keep their size.
    """
    with ThreadPoolExecutor() as pool:
        try:
            yield from pool.map(lambda one: _make(one[0], one[1], side), rows)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # if the reader stops early


def unseen(row: Prediction, problem: str | None = None) -> Picture:
    """The picture of a row's image without a thumbnail."""
    return Picture(row.image or "", row.width, row.height, None, problem)


def _make(row: Prediction, places: Sequence[RowImages], side: int) -> Picture:
    problems = []
    for place in places:
        try:
            image = place.decode(row)
        except RowError as error:
            problems.append(error.message)
        else:
            return Picture(row.image or "", *image.size, _thumbnail(image, side))
    return unseen(row, problems[0])


def _thumbnail(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + b64encode(stream.getvalue()).decode()
