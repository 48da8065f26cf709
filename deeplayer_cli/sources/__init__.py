"""Sources of requests: JSON lines, pipes and images."""

from deeplayer_cli.sources.arriving import ArrivingRows
from deeplayer_cli.sources.grouping import by_image
from deeplayer_cli.sources.images import Expression, parse_expression, parse_expressions
from deeplayer_cli.sources.opening import Requests, open_source, parse_shard
from deeplayer_cli.sources.survey import count_rows, fail_repeated

__all__ = [
    "ArrivingRows",
    "Expression",
    "Requests",
    "by_image",
    "count_rows",
    "fail_repeated",
    "open_source",
    "parse_expression",
    "parse_expressions",
    "parse_shard",
]
