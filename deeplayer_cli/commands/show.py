"""``deeplayer show``."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.options import option
from deeplayer_cli.errors import DeeplayerError, printable, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from deeplayer_cli.report.attention_heat import AttentionHeat
    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.pictures import Pictures
    from deeplayer_cli.schema import Prediction

logger = logging.getLogger("deeplayer")


class PictureFormat(StrEnum):
    """Formats of pictures."""

    PNG = "png"
    JPEG = "jpeg"


def show(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(help="A JSONL file that `deeplayer ground` wrote.", show_default=False)
    ],
    output: Annotated[Path, option("--output", "-o", command="show", help="Folder for the pictures.")],
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="Draw the row with this id only; repeatable.", show_default=False),
    ] = None,
    limit: Annotated[int | None, option("--limit", min=1, help="Draw the first N rows only.")] = None,
    format_: Annotated[
        PictureFormat, option("--format", command="show", help="Format of the pictures.")
    ] = PictureFormat.PNG,
    image_root: Annotated[
        Path | None,
        option("--image-root", help="Folder that relative image paths start from; by default, as in the run."),
    ] = None,
    font: Annotated[
        Path | None, option("--font", help="TrueType or OpenType font for the text, such as Noto Sans CJK for Chinese.")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace pictures that an earlier `show` drew.")] = False,
    attention: Annotated[
        bool,
        option(
            "--attention",
            command="show",
            help="Draw the attention of a layer, by the model, instead of the kept tokens.",
        ),
    ] = False,
    layer: Annotated[
        int | None,
        option(
            "--layer",
            command="show",
            min=1,
            help="Layer of --attention, counted from 1; by default that of the row's method.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        option("--model", command="show", help="Model of --attention; by default that of the run.", show_default=False),
    ] = None,
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
) -> None:
    """Draw rows as pictures: the image with the predicted boxes and the gold box, the expression, score and IoU.

    Rows of `ground --with-kept` also show which visual tokens were kept: the places of the others are dark.
    """
    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.pictures import Pictures
    from deeplayer_cli.report.row_images import RowImages

    if str(predictions) == "-" or (predictions.exists() and not predictions.is_file() and not predictions.is_dir()):
        raise DeeplayerError(f"{predictions} can be read only once, and show reads the rows twice: name a file")
    lettering = Lettering(font)
    images = RowImages.from_predictions(predictions, image_root)
    pictures = Pictures(output, images, lettering, format=format_.value, overwrite=overwrite)
    pictures.refuse_folder()
    _check(predictions, ids, limit, pictures)
    if attention:
        pictures.heat = _attention_heat(predictions, layer, model, revision, dtype, device, yes=yes)
    elif layer is not None:
        raise DeeplayerError("--layer is the layer of --attention: give both")
    else:
        reason = "without --attention, no model is loaded"
        options.warn_if_ignored(context, reason, "model", "revision", "yes", "dtype", "device")
    for row in _chosen(predictions, ids, limit):
        pictures.add(row)
    _report(pictures, lettering)
    if pictures.problems:
        raise typer.Exit(FINISHED_WITH_ERRORS)


@contextmanager
def drawing(
    folder: Path | None, sources: Sequence[str], images: Mapping[str, Any], *, new: bool
) -> Iterator[Callable[[Prediction], None]]:
    """Draw the rows of a run on its way; a picture that fails costs no row.

    Args:
        folder: for the pictures; None to draw nothing.
        sources: of the run.
        images: further arguments of `RowImages`.
        new: whether the run begins anew, so that the folder must be empty.

    Yields:
        A function that draws a row.

    Raises:
        DeeplayerError: the folder cannot be used.
    """
    if folder is None:
        yield lambda _: None
        return
    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.pictures import Pictures
    from deeplayer_cli.report.row_images import RowImages

    lettering = Lettering()
    pictures = Pictures(folder, RowImages(sources, **images), lettering, overwrite=True)
    pictures.refuse_folder()
    with reading(str(folder)):
        if new and folder.exists() and any(folder.iterdir()):
            raise DeeplayerError(f"--show {folder} is not empty: name another folder, or give --overwrite")

    def draw(row: Prediction) -> None:
        try:
            pictures.add(row)
        except DeeplayerError as error:
            pictures.fail("not_written", str(error))

    yield draw
    _report(pictures, lettering)


def _report(pictures: Pictures, lettering: Lettering) -> None:
    """Log how many pictures there are, what could not be drawn, and which characters no font had."""
    for problem in pictures.problems.values():
        logger.warning(problem)
    if lettering.lacking:
        some = "".join(sorted(lettering.lacking)[:8])
        logger.warning(
            "no font has the characters %s, written as escapes: `deeplayer show --font FILE` names one", some
        )
    logger.info(pictures.summary())


def _attention_heat(
    predictions: Path,
    layer: int | None,
    model: str | None,
    revision: str | None,
    dtype: str,
    device: str,
    *,
    yes: bool,
) -> AttentionHeat:
    """Load the model of a run, cut images as the run did, and return what reads its attention.

    Raises:
        DeeplayerError: the model is not that of the run, is not known or cannot be loaded.
    """
    from dataclasses import replace

    from deeplayer_cli import checkpoints
    from deeplayer_cli.report.attention_heat import AttentionHeat
    from deeplayer_cli.sinks.run_record import load_record

    record = load_record(predictions)
    settings: Mapping[str, Any] = {} if record is None else record.settings
    of_run: Mapping[str, Any] = {} if record is None else record.circumstances
    if model is None:
        model, revision = of_run.get("model"), revision or of_run.get("revision")
    if not model:
        raise DeeplayerError(f"no record beside {predictions} names its model: give --model")
    options.agree_to_download(model, revision, yes=yes)
    if settings and checkpoints.identify(model, revision) != settings.get("weights"):
        raise DeeplayerError(f"--model {model} is not the model that wrote {predictions}, or its files have changed")
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    if max_tiles := settings.get("max_tiles"):
        checkpoint = replace(checkpoint, tiling=replace(checkpoint.tiling, max_tiles=max_tiles))
    return AttentionHeat(checkpoint, layer, settings.get("query", "last"))


def _check(predictions: Path, ids: Sequence[str] | None, limit: int | None, pictures: Pictures) -> None:
    """Refuse ids that no row has, and pictures that exist already, before any work."""
    found = set()
    for row in _chosen(predictions, ids, limit, quiet=True):
        found.add(str(row.id))
        pictures.refuse(row.id)
    if missing := [one for one in ids or [] if one not in found]:
        raise DeeplayerError(f"{predictions} has no row with the id {printable(missing[0])!r}")
    if not found:
        raise DeeplayerError(f"{predictions} has no rows: there is nothing to show")


def _chosen(
    predictions: Path, ids: Sequence[str] | None, limit: int | None, *, quiet: bool = False
) -> Iterator[Prediction]:
    from deeplayer_cli.sinks import read_predictions

    rows = read_predictions(predictions, quiet=quiet)
    return islice((row for row in rows if ids is None or str(row.id) in ids), limit)
