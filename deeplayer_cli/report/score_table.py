"""Prints the scores of a prediction file as a table, with notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.errors import printable
from deeplayer_cli.report.tables import plain_table, show_table, two_lines
from deeplayer_cli.schema.answer_rules import OFFICIAL_RULE
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from rich.table import Table

    from deeplayer_cli.evaluation import Rate, Report


def show(report: Report) -> None:
    """Print scores to stdout, with notes."""
    from rich.console import Console

    console = Console()
    show_table(_table(report))
    for note in _notes(report):
        console.print(note)


def _table(report: Report) -> Table:
    from rich.markup import escape

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
    return "-" if rate is None else two_lines(f"{rate.value:.1%}", f"{100 * rate.low:.0f}-{100 * rate.high:.0f}")


def _notes(report: Report) -> list[str]:
    overall = report.overall
    images = counted(overall.n_images, "image")
    notes = [f"95% intervals, clustered by image ({images}); a row without a box counts as wrong."]
    if report.rule == OFFICIAL_RULE:
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
