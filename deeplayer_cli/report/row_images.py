"""Finds the images of prediction rows again, and decodes them in the frame of their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.loader import content_digest
from deeplayer_cli.schema import check_inside

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image

    from deeplayer_cli.schema import Prediction
    from deeplayer_cli.sinks import RunRecord


@dataclass(frozen=True, slots=True)
class RowImages:
    """The images of a prediction file's rows.

    Attributes:
        folders: where relative paths may start from; the first one with the image counts.
        confined: refuse images outside of these folders.
        exif_transpose: turn images by their EXIF orientation, as the run did.
    """

    folders: tuple[Path, ...]
    confined: bool = False
    exif_transpose: bool = False

    @classmethod
    def of_files(cls, files: Iterable[tuple[Path, RunRecord | None]], image_root: Path | None = None) -> RowImages:
        """Look where the run found its images, then beside the predictions, then in the working directory.

        Args:
            files: prediction files with the same settings, and the record of each if there is one.
            image_root: the only folder to look in, if it is given; images outside of it are refused.
        """
        files = list(files)
        turned = any(record is not None and bool(record.settings.get("exif_transpose")) for _, record in files)
        if image_root is not None:
            return cls((image_root,), True, turned)
        of_run = [folder for _, record in files if record is not None for folder in _folders_of_run(record)]
        return cls(tuple(dict.fromkeys([*of_run, *(path.parent for path, _ in files), Path()])), False, turned)

    def open(self, row: Prediction) -> Image.Image:
        """Decode the image of a row into RGB.

        Raises:
            RowError: as `open_image`; ``image_missing``: no folder has it; ``image_outside``: it lies outside of the
                given folder; ``image_changed``: it is not the image that the run has read.
        """
        if row.image is None:
            raise RowError("image_missing", "the row names no image")
        image = open_image(self._find(row), exif_transpose=self.exif_transpose)
        if None not in (row.width, row.height) and image.size != (row.width, row.height):
            raise RowError("image_changed", f"{row.image} had {row.width} x {row.height} pixels in the run")
        return image

    def _find(self, row: Prediction) -> Path:
        paths = [folder / str(row.image) for folder in self.folders]
        found = [path for path in paths if _exists(path)]
        if not found:
            folders = [str(folder) if folder.parts else "the working folder" for folder in self.folders]
            raise RowError("image_missing", f"{row.image} is not in {', '.join(folders)}")
        if self.confined:
            check_inside(found[0], self.folders[0])
        if row.image_id is None:
            return found[0]
        for path in found:
            if content_digest(path) == row.image_id:
                return path
        raise RowError("image_changed", f"{found[0]} is not the image that the run has read")


def _folders_of_run(record: RunRecord) -> list[Path]:
    """The folders that the relative paths of a run started from."""
    root, sources = record.circumstances.get("image_root"), record.circumstances.get("source")
    folders = [Path(root)] if isinstance(root, str) else []
    for source in sources if isinstance(sources, list) else []:
        path = Path(str(source))
        folders += [path, path.parent] if path.is_dir() else [path.parent]  # a folder of images is part of their names
    return folders


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a null byte
        return False
