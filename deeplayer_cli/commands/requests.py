"""The requests of a run, from deeplayer's own files or those of other formats, and what its record says of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli import __version__
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.boxes import BoxFormat
    from deeplayer_cli.sources import Expression, Requests


def open_requests(
    source: Sequence[str],
    *,
    from_format: str | None,
    embedded: Path | None,
    expressions: Sequence[Expression] = (),
    image_root: Path | None = None,
    confined: bool = True,
    box_format: BoxFormat | None = None,
    exif_transpose: bool = False,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
) -> Requests:
    """Open the sources that a command names.

    Args:
        source: paths, or ``-``.
        from_format: name of the format that all of them are in; None for deeplayer's own.
        embedded: folder for images that lie inside a file of another format; None refuses such files.
        expressions: see `open_source`.
        image_root: see `open_source`; with ``from_format``, it is searched for the images.
        confined: see `open_source`.
        box_format: how gold boxes are written, instead of the rule of the source's format.
        exif_transpose: whether the run turns images, so that relative boxes are fractions of the turned ones.
        shard: see `Requests`.
        limit: see `Requests`.

    Raises:
        DeeplayerError: a source cannot be read, or is in another format than it should be.
    """
    from deeplayer_cli import sources
    from deeplayer_cli.images.decode import read_size
    from deeplayer_cli.schema import GoldReader

    size_of = partial(read_size, exif_transpose=exif_transpose)
    if from_format is None:
        for one in source:
            _refuse_foreign(one, image_root)
        return sources.open_source(
            source,
            expressions=expressions,
            image_root=image_root,
            confined=confined,
            shard=shard,
            limit=limit,
            gold_reader=GoldReader(box_format, size_of),
        )
    from deeplayer_cli.formats.imports.importing import ImportOptions
    from deeplayer_cli.formats.imports.source import open_imports

    if expressions:
        raise DeeplayerError("--from-format reads files that have their own expressions: leave out -e")
    options = ImportOptions(
        from_format, image_root, embedded, box_format, size_of, confined=confined and image_root is not None
    )
    return open_imports([Path(one) for one in source], options, shard=shard, limit=limit)


def circumstances_of(
    source: Sequence[str], image_root: Path | None, model: str, revision: str | None, **more: object
) -> dict[str, object]:
    """What the record of a run holds besides its settings: what it read, and with which model.

    Args:
        source: as the command names it.
        image_root: see `open_source`.
        model: the value of ``--model``.
        revision: of a hub model.
        more: further entries.
    """
    from deeplayer_cli.schema import in_text

    return {
        "version": __version__,
        "source": [in_text(one) for one in source],
        **more,
        "image_root": None if image_root is None else in_text(image_root),
        "model": in_text(model),
        "revision": revision,
    }


def open_to_check(
    source: Sequence[str],
    *,
    from_format: str | None,
    embedded: Path,
    expressions: Sequence[Expression] = (),
    image_root: Path | None = None,
    box_format: BoxFormat | None = None,
) -> tuple[Requests, BoxFormat | None]:
    """Open sources in any format, to look at them: nothing is refused that a row can say.

    Args:
        source: paths.
        from_format: see `open_requests`; None recognises other formats too.
        embedded: see `open_requests`.
        expressions: see `open_requests`.
        image_root: see `open_requests`.
        box_format: see `open_requests`.

    Returns:
        The rows; and ``box_format``, ``xyxy`` in its place where another format of files has said how boxes are
        written, or None where nobody has.

    Raises:
        DeeplayerError: a source cannot be read, or does not say how its boxes are written.
    """
    from deeplayer_cli import sources
    from deeplayer_cli.formats.imports.importing import ImportOptions
    from deeplayer_cli.formats.imports.source import foreign_title, open_imports
    from deeplayer_cli.images.decode import read_size
    from deeplayer_cli.schema import GoldReader

    if from_format is None and not any(foreign_title(Path(one), image_root) for one in source):
        gold_reader = GoldReader(box_format or "xyxy", read_size)
        requests = sources.open_source(source, expressions=expressions, image_root=image_root, gold_reader=gold_reader)
        return requests, box_format
    options = ImportOptions(from_format or "auto", image_root, embedded, box_format)
    return open_imports([Path(one) for one in source], options, warn=lambda _: None), box_format or "xyxy"


def _refuse_foreign(source: str, image_root: Path | None) -> None:
    """Refuse a file that is clearly in another format, with a sentence that names the option to read it."""
    from deeplayer_cli.formats.imports.source import foreign_title

    title = foreign_title(Path(source), image_root)
    if title is not None:
        raise DeeplayerError(
            f"{source} is {title}: give --from-format auto to read it, and --image-root if its images lie elsewhere; "
            "or convert it with `deeplayer data import`"
        )
