"""``deeplayer data``: import requests from other formats, and export predictions to other tools."""

from __future__ import annotations

import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplayer_cli.commands import merge, options
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.options import example, option
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from deeplayer_cli.formats.check import DataReport

logger = logging.getLogger("deeplayer")

app = typer.Typer(
    help="Convert requests from other formats, and predictions for labelling tools; merge shards.",
    no_args_is_help=True,
)
app.command(epilog=example("data merge part-*.jsonl -o whole.jsonl"))(merge.merge)


class Target(StrEnum):
    """Formats that predictions can be exported to."""

    COCO = "coco"
    COCO_RESULTS = "coco-results"
    YOLO = "yolo"
    LABEL_STUDIO = "labelstudio"
    VOC = "voc"
    CSV = "csv"
    FIFTYONE = "fiftyone"


class FrameName(StrEnum):
    """Frames of exported boxes, see `deeplayer_cli.formats.frames.Frame`."""

    RUN = "run"
    STORED = "stored"
    TURNED = "turned"


@app.command("import", epilog=example("data import refcoco_val.jsonl --images coco/train2014 -o requests.jsonl"))
def import_(
    source: Annotated[
        list[Path],
        typer.Argument(
            help="RefCOCO as InternVL's JSONL, lmms-lab's or jxu124's parquet, VLMEvalKit's TSV, refs(...).p; "
            "COCO JSON, Label Studio tasks, Flickr30k Entities, CSV, JSON lines, a JSON array.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, option("--output", "-o", command="import", help="Write the requests here, as JSON lines.")],
    images: Annotated[
        Path | None,
        option(
            "--images",
            "--image-root",
            command="import",
            help="Folder of the images, which are found by the longest tail of their path that exists; by default the "
            "folder of SOURCE.",
        ),
    ] = None,
    from_format: Annotated[
        str,
        option(
            "--from-format",
            help="`auto` recognises the format by content; or flickr30k, parquet, refer, vlmevalkit, internvl, coco, "
            "labelstudio, jsonl, json, csv.",
        ),
    ] = "auto",
    box_format: options.BoxFormat = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Convert data of another format into requests for `ground`.

    The format is recognised by content. Images inside a file are written to OUTPUT.images. Counts of the eight RefCOCO
    splits are compared with the standard ones. Rows that are no requests are left out and counted: the exit code is
    then 1.
    """
    from deeplayer_cli.formats.imports.importing import ImportOptions, import_files
    from deeplayer_cli.sinks import refuse_same_file
    from deeplayer_cli.sinks.output_file import refuse_output

    refuse_same_file(output, map(str, source))
    refuse_output(output, inputs=source, overwrite=overwrite)
    embedded = None if str(output) == "-" else output.with_name(f"{output.name}.images")
    wanted = ImportOptions(from_format, images, embedded, box_format.value if box_format else None)
    summary = import_files(source, output, wanted)
    for warning in summary.warnings:
        logger.warning(warning)
    for n_rows, first in summary.left_out.values():
        logger.warning("%s left out, the first: %s", counted(n_rows, "row"), first)
    name = "stdout" if str(output) == "-" else output
    without = summary.n_rows - summary.n_boxes
    boxes = f", {without:,} of them without a box" if without else ""
    logger.info("%s: %s from %s%s", name, counted(summary.n_rows, "request"), ", ".join(summary.formats), boxes)
    if summary.left_out:
        raise typer.Exit(FINISHED_WITH_ERRORS)


@app.command(epilog=example("data check requests.jsonl"))
def check(
    source: Annotated[
        list[str],
        typer.Argument(help="Requests, as `ground` takes them, or files as `import` takes them.", show_default=False),
    ],
    expression: options.Expressions = None,
    image_root: Annotated[
        Path | None,
        option("--image-root", help="Folder of the images: relative paths start from it, or are searched below it."),
    ] = None,
    from_format: options.FromFormat = None,
    box_format: options.BoxFormat = None,
    json: options.Json = False,
) -> None:
    """Check requests and their images without a model: a table of problems, each with its count and first place.

    Finds rows that would fail, images that are missing or broken or turned by EXIF, sizes that do not agree, boxes that
    lie outside or are written in another format, rows, ids and images that occur twice, and expressions that look like
    label files. The exit code is 1 if there is a problem, 0 if there is none.
    """
    from tempfile import TemporaryDirectory

    import orjson

    from deeplayer_cli.commands.requests import open_to_check
    from deeplayer_cli.formats.check import DataCheck
    from deeplayer_cli.sources import parse_expressions

    with TemporaryDirectory() as embedded:
        requests, agreed = open_to_check(
            source,
            from_format=from_format,
            embedded=Path(embedded),
            expressions=parse_expressions(expression or []),
            image_root=image_root,
            box_format=box_format.value if box_format else None,
        )
        report = DataCheck(agreed).run(requests)
    if not report.rows:
        raise DeeplayerError(f"{', '.join(source)}: there are no rows to check")
    if json:
        typer.echo(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2))
    else:
        _show_report(report)
    if report.problems:
        raise typer.Exit(FINISHED_WITH_ERRORS)


def _show_report(report: DataReport) -> None:
    from rich.console import Console
    from rich.markup import escape

    from deeplayer_cli.errors import printable
    from deeplayer_cli.report.tables import plain_table

    if report.problems:
        table = plain_table()
        table.add_column("count", justify="right", no_wrap=True)
        table.add_column("problem", no_wrap=True)
        table.add_column("first at", overflow="fold")
        for problem in report.problems.values():
            place, message = (escape(printable(text)) for text in (problem.place, problem.message))
            table.add_row(str(problem.count), problem.kind, f"{place}\n[dim]{message}[/dim]" if place else message)
        Console().print(table)
    found = f"{counted(len(report.problems), 'kind')} of problem" if report.problems else "no problems"
    typer.echo(
        f"{counted(report.rows, 'row')}, {counted(report.images, 'image')} ({report.turned} turned by EXIF), "
        f"{counted(report.boxes, 'box', 'boxes')}: {found}"
    )


@app.command(epilog=example("data export boxes.jsonl --to coco -o boxes.json"))
def export(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(help="A JSONL file that `deeplayer ground` wrote, or `-` for stdin.", show_default=False)
    ],
    to: Annotated[Target, option("--to", help="Target format; yolo and voc make a folder, the others a file.")],
    output: Annotated[Path, option("--output", "-o", command="export", help="File or folder to write.")],
    label_field: Annotated[
        str | None,
        option(
            "--label-field",
            help="Field of a row or of its meta with the class; by default meta.label, or else the expression.",
        ),
    ] = None,
    all_boxes: Annotated[
        bool, option("--all-boxes", help="Export all boxes of an answer, not only the first.")
    ] = False,
    min_score: Annotated[float, option("--min-score", min=0, max=1, help="Leave out rows with a lower score.")] = 0.0,
    url_prefix: Annotated[
        str, option("--url-prefix", help="For labelstudio: put this in front of each image's path.")
    ] = "",
    image_root: Annotated[
        Path | None,
        option(
            "--image-root",
            help="Folder of the images: absolute paths are written from it on (by default, from the folder that all "
            "have in common), and it is where EXIF is read.",
        ),
    ] = None,
    exif: Annotated[
        FrameName,
        option(
            "--exif",
            help="Frame of the boxes: `run`, as they are; `stored`, of the image as stored; `turned`, of the image as "
            "programs show it that turn it by EXIF (Label Studio, browsers, OpenCV, ultralytics).",
        ),
    ] = FrameName.RUN,
    overwrite: options.Overwrite = False,
) -> None:
    """Write predictions as COCO, YOLO, Label Studio, Pascal VOC, CSV or FiftyOne labels.

    Boxes are clipped to the image and their corners are ordered. They are in the frame of the run: the stored image, or
    with `ground --exif-transpose` the turned one; --exif changes that. For labelstudio, the labelling configuration is
    written beside the tasks, as OUTPUT.config.xml without OUTPUT's own ending. The exit code is 1 if every row is left
    out, so that no box is written.
    """
    from deeplayer_cli.formats.exports import exports
    from deeplayer_cli.formats.frames import BoxFrames
    from deeplayer_cli.formats.labelled import Labelling, label_images
    from deeplayer_cli.formats.yolo import image_place
    from deeplayer_cli.report.row_images import RowImages
    from deeplayer_cli.sinks import read_predictions
    from deeplayer_cli.sinks.output_file import refuse_folder, refuse_output, replacing, replacing_entries
    from deeplayer_cli.sinks.run_record import load_record, record_path

    if to is not Target.LABEL_STUDIO:
        options.warn_if_ignored(context, f"--to {to.value} writes no addresses", "url_prefix")
    target = exports(url_prefix)[to.value]
    if target.is_folder:
        refuse_folder(output)
    for path, _ in target.outputs(output):
        refuse_output(path, inputs=[predictions, record_path(predictions)], overwrite=overwrite)
    name = "stdin" if str(predictions) == "-" else predictions
    record = load_record(predictions)
    images = RowImages.from_predictions(predictions, image_root)
    is_turned = record is not None and bool(record.settings.get("exif_transpose"))
    frames = BoxFrames(exif.value, images.find, is_turned=is_turned)
    labelled = label_images(
        read_predictions(predictions),
        Labelling(label_field, all_boxes, min_score),
        image_root=None if image_root is None else os.path.abspath(image_root),  # noqa: PTH100 (takes ".." out)
        turn=frames.turn,
    )
    if not (labelled.images or labelled.left_out):
        raise DeeplayerError(f"{name} has no rows: there is nothing to export")
    if target.is_folder:
        with replacing_entries(output) as folder:
            target.write(labelled, folder)
    else:
        for path, write in target.outputs(output):
            with replacing(path) as partial:
                write(labelled, partial)
    if labelled.with_boxes:
        logger.info("%s: %s", output, labelled.summary())
    else:
        logger.warning("%s: no boxes, as every row of %s is left out: %s", output, name, labelled.reasons())
    if to is Target.YOLO and labelled.with_boxes:
        logger.info(image_place(labelled, output))
    for path, _ in target.outputs(output)[1:]:
        logger.info("%s: the labelling configuration, for the settings of the project", path)
    if (sentence := frames.summary()) is not None:
        logger.warning(sentence)
    if not labelled.with_boxes:
        raise typer.Exit(FINISHED_WITH_ERRORS)
