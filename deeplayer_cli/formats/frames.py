"""The frame of exported boxes: the stored image's, or that of the image turned by its EXIF orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deeplayer_cli.boxes import inverse_orientation
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.decode import read_orientation
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deeplayer_cli.schema import Prediction

Frame = Literal["run", "stored", "turned"]
"""As in the run; as the image is stored; or as programs show it that turn images by EXIF."""


class BoxFrames:
    """Says how to turn the boxes of a row, and counts the images that EXIF turns.

    Args:
        wanted: frame of the exported boxes.
        is_turned: whether the run turned its images (``--exif-transpose``).
        find: returns the file of a row's image, or raises a ``RowError``.
    """

    def __init__(self, wanted: Frame, find: Callable[[Prediction], Path], *, is_turned: bool) -> None:
        self._wanted, self._find, self._is_turned = wanted, find, is_turned
        self._orientations: dict[tuple[str | None, str | None], int | None] = {}

    def turn(self, row: Prediction) -> int:
        """The EXIF orientation to turn a row's boxes by.

        Raises:
            DeeplayerError: the boxes must be turned, and the image is not found, or has changed.
        """
        needed = self._wanted != "run" and (self._wanted == "turned") != self._is_turned
        key = row.image, row.image_id  # copies are images of their own, as in the export
        if key not in self._orientations:
            try:
                self._orientations[key] = read_orientation(self._find(row))
            except RowError as error:
                if needed:
                    raise DeeplayerError(f"--exif {self._wanted} needs the images: {error}") from error
                self._orientations[key] = None
        orientation = self._orientations[key] or 1
        if not needed:
            return 1
        return orientation if self._wanted == "turned" else inverse_orientation(orientation)

    def summary(self) -> str | None:
        """A sentence about images that EXIF turns, if there are any."""
        n_turned = sum(orientation not in (None, 1) for orientation in self._orientations.values())
        n_unknown = sum(orientation is None for orientation in self._orientations.values())
        turned = self._is_turned if self._wanted == "run" else self._wanted == "turned"
        frame = "the turned images" if turned else "the stored images"
        if n_turned:
            other = "stored" if turned else "turned"
            who = "programs that ignore EXIF" if turned else "Label Studio, browsers, OpenCV and ultralytics"
            return (
                f"EXIF turns {n_turned} of the images: their boxes are in pixels of {frame}; for {who}, give "
                f"--exif {other}"
            )
        if n_unknown:
            return (
                f"{counted(n_unknown, 'image')} not found, or changed since the run, so it is not known whether EXIF "
                f"turns them: boxes are in pixels of {frame}; --image-root names the folder of the images"
            )
        return None
