"""Evaluation: accuracy of predictions, and comparisons of methods."""

from deeplayer_cli.evaluation.agreement import disagreements
from deeplayer_cli.evaluation.compare import compare, line_called
from deeplayer_cli.evaluation.gold import read_gold
from deeplayer_cli.evaluation.results import read_runs, result_files
from deeplayer_cli.evaluation.score import Rate, Report, Summary, score

__all__ = [
    "Rate",
    "Report",
    "Summary",
    "compare",
    "disagreements",
    "line_called",
    "read_gold",
    "read_runs",
    "result_files",
    "score",
]
