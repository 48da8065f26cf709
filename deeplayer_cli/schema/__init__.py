"""The rows: what comes in as JSON, what goes out as JSON lines, and nothing else.

Every request ends as exactly one prediction, also when it cannot even be asked.
"""

from deeplayer_cli.schema.prediction import Prediction, Status, overlap
from deeplayer_cli.schema.request import (
    MAX_ROW_BYTES,
    BadRequest,
    Request,
    check_gold,
    check_resolution,
    parse_box,
    parse_request,
)
from deeplayer_cli.schema.values import Id

__all__ = [
    "MAX_ROW_BYTES",
    "BadRequest",
    "Id",
    "Prediction",
    "Request",
    "Status",
    "check_gold",
    "check_resolution",
    "overlap",
    "parse_box",
    "parse_request",
]
