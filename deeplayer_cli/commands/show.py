"""``deeplayer show``."""

from __future__ import annotations

import logging
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplayer_cli.commands.options import option
from deeplayer_cli.errors import DeeplayerError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.pictures import Pictures
    from deeplayer_cli.schema import Prediction

logger = logging.getLogger("deeplayer")

FINISHED_WITH_ERRORS = 1


class PictureFormat(StrEnum):
    """Formats of pictures."""

    PNG = "png"
    JPEG = "jpeg"


def show(
    predictions: Annotated[
        Path, typer.Argument(help="A JSONL file that `deeplayer ground` wrote.", show_default=False)
    ],
    output: Annotated[Path, option("--output", "-o", help="Folder for the pictures.")],
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="Draw the row with this id only; repeatable.", show_default=False),
    ] = None,
    limit: Annotated[int | None, option("--limit", min=1, help="Draw the first N rows only.")] = None,
    format_: Annotated[PictureFormat, option("--format", help="Format of the pictures.")] = PictureFormat.PNG,
    image_root: Annotated[
        Path | None,
        option("--image-root", help="Folder that relative image paths start from; by default, as in the run."),
    ] = None,
    font: Annotated[
        Path | None, option("--font", help="TrueType or OpenType font for the text, such as Noto Sans CJK for Chinese.")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace pictures that an earlier `show` drew.")] = False,
) -> None:
    """Draw rows as pictures: the image with the predicted boxes and the gold box, the expression, score and IoU.

    Rows of `ground --with-kept` also show which visual tokens were kept: the places of the others are dark.

    Example: `deeplayer show boxes.jsonl --id scene-0003-0 -o pictures`
    """
    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.pictures import Pictures
    from deeplayer_cli.report.row_images import RowImages

    lettering = Lettering(font)
    images = RowImages.from_predictions(predictions, image_root)
    pictures = Pictures(output, images, lettering, format=format_.value, overwrite=overwrite)
    pictures.refuse_folder()
    _check(predictions, ids, limit, pictures)
    for row in _chosen(predictions, ids, limit):
        pictures.add(row)
    report_problems(pictures, lettering)
    logger.info(pictures.summary())
    if pictures.problems:
        raise typer.Exit(FINISHED_WITH_ERRORS)


def report_problems(pictures: Pictures, lettering: Lettering) -> None:
    """Log what could not be drawn, and which characters no font had."""
    for problem in pictures.problems.values():
        logger.warning(problem)
    if lettering.lacking:
        some = "".join(sorted(lettering.lacking)[:8])
        logger.warning(
            "no font here has the characters %s: they are written as escapes; --font FILE names a font", some
        )


def _check(predictions: Path, ids: Sequence[str] | None, limit: int | None, pictures: Pictures) -> None:
    """Refuse ids that no row has, and pictures that exist already, before any work."""
    found = set()
    for row in _chosen(predictions, ids, limit, quiet=True):
        found.add(str(row.id))
        pictures.refuse(row.id)
    if missing := [one for one in ids or [] if one not in found]:
        raise DeeplayerError(f"{predictions} has no row with the id {printable(missing[0])!r}")


def _chosen(
    predictions: Path, ids: Sequence[str] | None, limit: int | None, *, quiet: bool = False
) -> Iterator[Prediction]:
    from deeplayer_cli.sinks import read_predictions

    rows = read_predictions(predictions, quiet=quiet)
    return islice((row for row in rows if ids is None or str(row.id) in ids), limit)
