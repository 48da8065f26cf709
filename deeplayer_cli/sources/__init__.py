"""Where requests come from."""

from deeplayer_cli.sources.images import Expression, parse_expression
from deeplayer_cli.sources.live import Sieve
from deeplayer_cli.sources.opening import Requests, open_source, parse_shard
from deeplayer_cli.sources.survey import count_rows, fail_repeated

__all__ = [
    "Expression",
    "Requests",
    "Sieve",
    "count_rows",
    "fail_repeated",
    "open_source",
    "parse_expression",
    "parse_shard",
]
