"""How good the predictions are."""

from deeplayer_cli.evaluation.agreement import disagreements
from deeplayer_cli.evaluation.compare import compare
from deeplayer_cli.evaluation.reading import read_gold, read_predictions
from deeplayer_cli.evaluation.score import Rate, Report, Summary, score

__all__ = ["Rate", "Report", "Summary", "compare", "disagreements", "read_gold", "read_predictions", "score"]
