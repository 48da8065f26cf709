"""Files of other formats as a source of requests: ``ground --from-format``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.images import is_file
from deeplayer_cli.formats.imports.importing import FileImporter, missing_images
from deeplayer_cli.formats.imports.named import EXPRESSION_NAMES, IMAGE_NAMES, first_objects, read_json_lines
from deeplayer_cli.formats.imports.recognise import recognise
from deeplayer_cli.formats.imports.splits import SplitCounts
from deeplayer_cli.images.formats import OTHER_SUFFIXES, SUFFIXES
from deeplayer_cli.sinks.descriptors import is_descriptor
from deeplayer_cli.sources import Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from deeplayer_cli.formats.imports.importing import ImportOptions
    from deeplayer_cli.schema import BadRequest, Request

logger = logging.getLogger("deeplayer")

_LOOKED_AT = 20  # rows


class ImportedFiles:
    """Files of other formats, read one after the other. A row without an id gets the id ``FOLDER/FILE:LINE``.

    Once all rows have been read, warnings say which images were not found, and which splits of RefCOCO do not count
    what they should.

    Args:
        files: at least one.
        warn: gets these warnings.
    """

    def __init__(self, files: Sequence[FileImporter], warn: Callable[[str], None]) -> None:
        self._files = files
        self._warn = warn
        self._told = False

    @property
    def name(self) -> str:
        """The name in messages."""
        return ", ".join(file.name for file in self._files)

    @property
    def repeatable(self) -> bool:
        """Always true: these formats are files."""
        return True

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield the rows of all files.

        Raises:
            DeeplayerError: a file cannot be read.
        """
        counts = SplitCounts()
        for file in self._files:
            file.finder.missing.clear()
            for _, row in file.rows():
                counts.add(row.meta, row.image, row.gold)
                yield row
        if not self._told:
            self._told = True
            for warning in (*counts.warnings(), *missing_images(self._files)):
                self._warn(warning)


def open_imports(
    sources: Sequence[Path],
    options: ImportOptions,
    *,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Requests:
    """Open files of other formats as requests, which are streamed.

    Args:
        sources: paths.
        options: how they are read.
        shard: see `Requests`.
        limit: see `Requests`.
        warn: see `ImportedFiles`.

    Raises:
        DeeplayerError: a path is no file, is in no known format, or does not say how its boxes are written.
    """
    for path in sources:
        if not path.exists():
            raise DeeplayerError(f"{path} does not exist: --from-format reads files")
        if is_descriptor(path) or not (path.is_file() or path.is_dir()):
            raise DeeplayerError(f"{path} is a pipe, and --from-format reads files: write it to a file first")
    files = [FileImporter.from_path(path, options) for path in sources]
    return Requests([ImportedFiles(files, warn)], shard, limit)


def foreign_title(path: Path, image_root: Path | None) -> str | None:
    """What a path is that is clearly in another format than requests; None for requests, images and unknown files.

    JSON lines are in another format if none of the first rows has an image and an expression by their names in
    requests, and one has them by other names. InternVL's are, if none of the first images lies where its row says.

    Args:
        path: of a source.
        image_root: the folder that relative image paths of requests start from; None for the file's own.
    """
    regular = path.is_dir() or (path.is_file() and not is_descriptor(path))
    if not regular or path.suffix.lower() in SUFFIXES | OTHER_SUFFIXES:
        return None
    try:
        form = recognise(path)
        if form.read is not read_json_lines:
            return form.title
        rows = first_objects(path, _LOOKED_AT)
    except DeeplayerError:
        return None
    own = [row for row in rows if "image" in row and row.keys() & {"expression", "sent"}]
    if not own:
        named = any(row.keys() & set(IMAGE_NAMES) and row.keys() & set(EXPRESSION_NAMES) for row in rows)
        return form.title if named else None
    root = image_root or path.parent
    lies_there = form.name != "internvl" or any(is_file(root / str(row["image"])) for row in own)
    return None if lies_there else f"{form.title}, and its images are not where its rows say"
