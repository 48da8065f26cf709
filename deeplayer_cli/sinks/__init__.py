"""Outputs: prediction files, streams, run records, and files that are written as a whole.

sink.py             the interface of a run's output; opening.py: opens it, and refuses what it must not be
prediction_file.py  a file that survives a crash and can be resumed; run_record.py: the settings beside it
stream.py           stdout, pipes and devices; terminal.py: a table for a person
reading.py          reads prediction files
merging.py          puts the shards of a run together
output_file.py      tables, plots, priors and converted data: whole or not at all
disk.py             the calls that change a file; descriptors.py: paths such as ``-`` and ``/dev/stdout``
"""

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
