"""``deeplayer score``."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import option
from deeplayer_cli.errors import DeeplayerError, printable
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from rich.table import Table

    from deeplayer_cli.boxes import BoxFormat
    from deeplayer_cli.evaluation import Rate, Report, Summary


logger = logging.getLogger("deeplayer")


class AnswerRule(StrEnum):
    """Rules that read a box from the text of an answer."""

    INTERNVL = "internvl"
    STRICT = "strict"
    VLMEVALKIT = "vlmevalkit"


def score(
    predictions: Annotated[
        Path, typer.Argument(help="A JSONL file that `deeplayer ground` wrote, or `-` for stdin.", show_default=False)
    ],
    gold: Annotated[
        Path | None, option("--gold", help="JSONL file of gold boxes, matched by id; they replace those of the rows.")
    ] = None,
    by: Annotated[
        str | None, option("--by", help="Also score each value of this field separately: of the row, or of its meta.")
    ] = None,
    rule: Annotated[
        AnswerRule | None,
        option("--rule", help="Read the stored answers again by this rule.", show_default="boxes as stored"),
    ] = None,
    box_format: options.BoxFormat = None,
    json: options.Json = False,
) -> None:
    """Score predicted boxes against gold boxes; failures stay in the denominator."""
    from deeplayer_cli import evaluation
    from deeplayer_cli.sinks import read_predictions

    written: BoxFormat | None = box_format.value if box_format else None
    report = evaluation.score(
        read_predictions(predictions),
        rule=rule.value if rule else None,
        gold=evaluation.read_gold(gold, written) if gold else None,
        by=by,
        box_format=written,
    )
    if not report.overall.n:
        name = "stdin" if str(predictions) == "-" else predictions
        raise DeeplayerError(f"{name} has no rows: there is nothing to score")
    for disagreement in evaluation.disagreements(predictions):
        logger.warning(disagreement)
    for warning in report.warnings:
        logger.warning(warning)
    if json:
        typer.echo(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2))
        return
    show(report)


def show(report: Report) -> None:
    """Print a report as a table with its notes."""
    from rich.console import Console

    from deeplayer_cli.report.tables import show_table

    console = Console()
    show_table(_table(report))
    for note in _notes(report):
        console.print(note)


def _table(report: Report) -> Table:
    from rich.markup import escape

    from deeplayer_cli.report.tables import plain_table

    names = ("acc@0.5", "acc@0.25", "acc@0.75", "centre_acc")
    title = f"answers read by rule {report.rule}" if report.rule else None
    table = plain_table(title=title)  # fits 80 columns
    table.add_column(escape(report.by or ""))
    for heading in ("rows", "no box", "errors", *names[:3], "centre", "mean IoU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, summary in [*report.groups.items(), ("all", report.overall)]:
        rates = [_rate(summary.rates.get(name)) for name in names]
        mean_iou = "-" if summary.mean_iou is None else f"{summary.mean_iou:.3f}"
        counts = [str(summary.n), str(summary.n_no_box), str(summary.n_error)]
        table.add_row(escape(printable(label)), *counts, *rates, mean_iou)
    return table


def _rate(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.value:.1%}\n[dim]{100 * rate.low:.0f}-{100 * rate.high:.0f}[/dim]"


def _notes(report: Report) -> list[str]:
    overall: Summary = report.overall
    images = counted(overall.n_images, "image")
    notes = [f"95% intervals, clustered by image ({images}); a row without a box counts as wrong."]
    if report.rule == AnswerRule.INTERNVL:
        notes.append(
            "Rule internvl reads the whole answer, as the official evaluation does; stored boxes are read behind the "
            "repeated expression."
        )
    if overall.score_quality is not None:
        notes.append(str(overall.score_quality))
    if report.n_joined is not None:
        notes.append(
            f"{report.n_joined} of {counted(overall.n, 'prediction')} with a gold box in --gold, joined by id."
        )
    if overall.n_without_gold:
        gold = " --gold FILE joins the boxes of another file by id." if overall.n_without_gold == overall.n else ""
        notes.append(f"{counted(overall.n_without_gold, 'row')} without a gold box: not counted.{gold}")
    if report.n_unanswered:
        boxes = counted(report.n_unanswered, "gold box", "gold boxes")
        notes.append(f"{boxes} without a prediction: the scores do not cover the whole set.")
    return notes
