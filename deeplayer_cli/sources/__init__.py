"""Where requests come from: JSON lines, stdin, folders of images; streamed, a row at a time."""

from deeplayer_cli.sources.images import Expression, parse_expression
from deeplayer_cli.sources.opening import count_rows, open_source, parse_shard, shard

__all__ = ["Expression", "count_rows", "open_source", "parse_expression", "parse_shard", "shard"]
