"""``deeplayer report``."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import option
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deeplayer_cli.boxes import BoxFormat
    from deeplayer_cli.report.page import PageSummary

logger = logging.getLogger("deeplayer")


def report(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="JSONL files that `ground` wrote, or folders of them, as `compare --results` makes; rows of several "
            "runs are joined by id.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, option("--output", "-o", command="report", help="The HTML file to write.", show_default=False)
    ],
    gold: Annotated[
        Path | None, option("--gold", help="JSONL file of gold boxes, matched by id; they replace those of the rows.")
    ] = None,
    by: Annotated[
        list[str] | None,
        option(
            "--by",
            help="Make a table and a filter for this field of the row or of its meta; repeatable. By default, for the "
            "fields of meta with few values.",
            show_default=False,
        ),
    ] = None,
    box_format: options.BoxFormat = None,
    title: Annotated[str, option("--title", help="Heading of the page.")] = "Visual grounding",
    image_root: Annotated[
        Path | None,
        option(
            "--image-root",
            help="Folder that image paths start from; by default the run's, then that of the predictions.",
            show_default=False,
        ),
    ] = None,
    thumbnails: Annotated[
        int, option("--thumbnails", min=16, max=2048, help="Longer side of the pictures, in pixels.")
    ] = 320,
    max_images: Annotated[
        int,
        option("--max-images", min=0, help="The most pictures; those of the rows with the lowest IoU come first."),
    ] = 2000,
    overwrite: options.Overwrite = False,
) -> None:
    """Make one HTML page to look at: accuracy, tables, and every row with its boxes.

    The page loads nothing from elsewhere: it opens from a file and can be sent as it is.
    """
    from deeplayer_cli import evaluation
    from deeplayer_cli.report.page import PageOptions, prediction_files, require_jinja, write_page
    from deeplayer_cli.schema import in_text
    from deeplayer_cli.sinks import record_path
    from deeplayer_cli.sinks.output_file import refuse_output

    require_jinja()
    files = prediction_files(predictions)
    inputs = [*predictions, *files, *map(record_path, files), *([] if gold is None else [gold])]
    refuse_output(output, inputs=inputs, overwrite=overwrite)
    written: BoxFormat | None = box_format.value if box_format else None
    page = PageOptions(in_text(title), by, written, image_root, thumbnails, max_images)
    boxes = evaluation.read_gold(gold, written) if gold else None
    with _progress() as show:
        summary = write_page(predictions, output, page, boxes, show)
    _say(summary, output, max_images)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over images, drawn on stderr if that is a terminal."""
    from tqdm import tqdm

    with tqdm(unit="image", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(done: int, n_images: int) -> None:
            bar.total = n_images
            bar.update(done - bar.n)

        yield show


def _say(summary: PageSummary, output: Path, max_images: int) -> None:
    """Log what the page holds, and what it does not."""
    images = counted(len(summary.pictures), "image")
    for warning in summary.warnings:
        logger.warning(warning)
    if problems := summary.problems:
        logger.warning("not shown: %d of %s, such as: %s", len(problems), images, problems[0])
    if summary.n_left_out:
        logger.warning(
            "left out by --max-images %d: %d of %s; their rows are on the page",
            *(max_images, summary.n_left_out, images),
        )
    size = f", {output.stat().st_size / 1e6:.1f} MB" if output.is_file() else ""
    rows, runs = counted(summary.n_rows, "row"), counted(summary.n_runs, "run")
    logger.info("%s: %s of %s, %s%s", output, rows, runs, images, size)
