"""How good the predictions are."""

from deeplayer_cli.evaluation.reading import read_gold, read_predictions
from deeplayer_cli.evaluation.score import Rate, Report, Summary, score

__all__ = ["Rate", "Report", "Summary", "read_gold", "read_predictions", "score"]
