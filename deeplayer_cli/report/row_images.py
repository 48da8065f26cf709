"""The images of prediction rows, found where their run found them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import RowError, printable
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.images.files import content_digest
from deeplayer_cli.schema import check_inside
from deeplayer_cli.schema.values import from_text
from deeplayer_cli.sinks.run_record import load_record
from deeplayer_cli.sources.files import file_name, name_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from deeplayer_cli.schema import Prediction


@dataclass(frozen=True)
class _Root:
    """A folder that paths in rows may start from.

    Attributes:
        folder: the folder.
        name: how the ``source`` of its rows begins.
    """

    folder: Path
    name: str


class RowImages:
    """Finds and opens the images of rows.

    The ``image`` of a row starts from ``image_root``, or from where the row's source is. A file counts only if its
    content is that of the row's ``image_id``, so a row never gets the image of another one.

    Args:
        sources: of the run, as they were typed.
        image_root: the folder that relative paths start from, and the first one to look in.
        confined: refuse images outside of ``image_root``.
        folder: where else to look: the folder of the prediction file.
        turned: whether boxes are in the frame that EXIF orientation turns an image to; None if it is not known.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        image_root: Path | None = None,
        confined: bool = False,
        folder: Path | None = None,
        turned: bool | None = None,
    ) -> None:
        self._image_root, self._confined, self._turned = image_root, confined, turned
        self._folders = [Path(), *([] if folder is None else [folder])]
        self._roots = [root for source in sources for base in self._folders for root in _roots_of(base / source)]
        self._last: tuple[tuple[Path, tuple[int, int] | None], Image.Image] | None = None

    @classmethod
    def from_predictions(cls, predictions: Path, image_root: Path | None = None) -> RowImages:
        """Find the images of a prediction file, by the record beside it if there is one.

        Args:
            predictions: the file.
            image_root: the folder that relative paths start from; images outside of it are refused. None: where the run
                found them.

        Raises:
            DeeplayerError: the record cannot be read.
        """
        record = load_record(predictions)
        circumstances = {} if record is None else record.circumstances
        turned = None if record is None else bool(record.settings.get("exif_transpose"))
        sources, recorded = circumstances.get("source"), circumstances.get("image_root")
        return cls(
            [str(one) for one in sources] if isinstance(sources, list) else [],
            image_root=image_root or (Path(recorded) if isinstance(recorded, str) else None),
            confined=image_root is not None,
            folder=predictions.parent,
            turned=turned,
        )

    def find(self, row: Prediction) -> Path:
        """Return the path of a row's image.

        Raises:
            RowError: ``image_missing``; ``image_outside``; or ``image_changed``: the file has other content than the
                row's image had.
        """
        if row.image is None:
            raise RowError("image_missing", f"row {_id(row)} names no image")
        refused: RowError | None = None
        for path in self._candidates(row, row.image):
            if not os.path.isfile(path):  # noqa: PTH113 - false where it cannot be told
                continue
            try:
                self._check(path, row)
            except RowError as error:
                refused = refused or error
            else:
                return path
        raise refused or RowError(
            "image_missing",
            f"row {_id(row)}: {printable(row.image)} is not found: --image-root names the folder it starts from",
        )

    def open(self, row: Prediction) -> Image.Image:
        """Return the image of a row, RGB, in the frame of the row's boxes; that of the row before is kept.

        Raises:
            RowError: as `decode`.
        """
        key = self.find(row), _size_of(row)
        if self._last is None or self._last[0] != key:
            self._last = None  # two large images at once would need twice the memory
            self._last = (key, self._decoded(*key))
        return self._last[1]

    def decode(self, row: Prediction) -> Image.Image:
        """Return the image of a row as `open`, but keep nothing; several threads may do this at once.

        Raises:
            RowError: it is not found, cannot be decoded, or has another size than the row says.
        """
        return self._decoded(self.find(row), _size_of(row))

    def _decoded(self, path: Path, size: tuple[int, int] | None) -> Image.Image:
        image = open_image(path, exif_transpose=bool(self._turned))
        if self._turned is None and size is not None and image.size != size:
            image = open_image(path, exif_transpose=True)
        if size is not None and image.size != size:
            found, said = (f"{width} x {height}" for width, height in (image.size, size))
            raise RowError("size_mismatch", f"{path} has {found} pixels, but its row says {said}")
        return image

    def _candidates(self, row: Prediction, name: str) -> Iterator[Path]:
        image = Path(name)
        if self._image_root is not None:
            yield self._image_root / image
            yield self._image_root.joinpath(*image.parts[1:])  # of a folder of images, whose name is the first part
        own = [root for root in self._roots if (row.source or "").startswith(root.name)]
        for root in own or self._roots:
            yield root.folder / image
        for folder in self._folders:
            yield folder / image
        if (raw := from_text(name)) != name:  # a file whose name is not UTF-8
            yield from self._candidates(row, raw)

    def _check(self, path: Path, row: Prediction) -> None:
        """Refuse a file that a row may not name, or that is not what was grounded."""
        if self._confined and self._image_root is not None:
            try:
                check_inside(path, self._image_root)
            except RowError as error:  # whose advice is an option of `ground`
                message = f"row {_id(row)}: {path} lies outside of --image-root {self._image_root}"
                raise RowError(error.kind, message) from error
        if row.image_id is not None and content_digest(path) != row.image_id:
            raise RowError(
                "image_changed", f"row {_id(row)}: {path} is not the image that was grounded: it has changed"
            )


def _roots_of(source: Path) -> list[_Root]:
    """Return the folders that the paths in a source's rows start from, whatever kind of source it is."""
    if source.is_dir():  # of JSON lines, or of images, whose paths begin with the folder's name
        name = name_in(source, "")
        return [_Root(source, name), _Root(Path(os.path.realpath(source)).parent, name)]
    name = file_name(source)
    return [_Root(source.parent, name), _Root(Path(os.path.realpath(source.parent)).parent, name)]


def _size_of(row: Prediction) -> tuple[int, int] | None:
    return None if row.width is None or row.height is None else (row.width, row.height)


def _id(row: Prediction) -> str:
    return printable(str(row.id))
