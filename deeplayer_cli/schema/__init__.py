"""The rows: requests come in as JSON, predictions go out as JSON lines.

Every request becomes exactly one prediction, even if the request is invalid.

request.py       the rows of an input file; gold.py: how four numbers become a gold box
prediction.py    the rows of an output file; tiles.py: where their visual tokens lie
answer_rules.py  the rules that read boxes from an answer
row_ids.py       sets of known rows, by hashes of their ids
values.py        values as JSON and as text
"""

from deeplayer_cli.schema.gold import BoxFormatCheck, GoldReader, WrittenGold, check_gold
from deeplayer_cli.schema.prediction import Prediction, Status, overlap
from deeplayer_cli.schema.request import (
    MAX_ROW_BYTES,
    OWN_FIELDS,
    BadRequest,
    Request,
    check_inside,
    check_resolution,
    parse_request,
    refuse_prediction,
)
from deeplayer_cli.schema.tiles import TileLayout, TokenCell
from deeplayer_cli.schema.values import Id, in_text

__all__ = [
    "MAX_ROW_BYTES",
    "OWN_FIELDS",
    "BadRequest",
    "BoxFormatCheck",
    "GoldReader",
    "Id",
    "Prediction",
    "Request",
    "Status",
    "TileLayout",
    "TokenCell",
    "WrittenGold",
    "check_gold",
    "check_inside",
    "check_resolution",
    "in_text",
    "overlap",
    "parse_request",
    "refuse_prediction",
]
