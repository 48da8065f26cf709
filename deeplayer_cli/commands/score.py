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
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from deeplayer_cli.boxes import BoxFormat

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
    from deeplayer_cli.report import score_table
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
    score_table.show(report)
