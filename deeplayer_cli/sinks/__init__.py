"""Outputs of a run: prediction files, streams and run records."""

from deeplayer_cli.sinks.opening import open_sink, refuse_same_file, refuse_twice
from deeplayer_cli.sinks.prediction_file import PredictionFile, ResumeMode
from deeplayer_cli.sinks.reading import read_predictions
from deeplayer_cli.sinks.run_record import RunRecord, load_record, record_path
from deeplayer_cli.sinks.sink import Sink
from deeplayer_cli.sinks.terminal import TerminalTable

__all__ = [
    "PredictionFile",
    "ResumeMode",
    "RunRecord",
    "Sink",
    "TerminalTable",
    "load_record",
    "open_sink",
    "read_predictions",
    "record_path",
    "refuse_same_file",
    "refuse_twice",
]
