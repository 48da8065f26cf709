"""Where predictions go."""

from deeplayer_cli.sinks.opening import open_sink, refuse_same_file
from deeplayer_cli.sinks.prediction_file import PredictionFile, Start
from deeplayer_cli.sinks.run_record import RunRecord, load_record, record_path

__all__ = ["PredictionFile", "RunRecord", "Start", "load_record", "open_sink", "record_path", "refuse_same_file"]
