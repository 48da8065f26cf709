"""Sources of requests: JSON lines, pipes and images.

opening.py          what the command line names, as the rows of all of it
jsonl.py            JSON lines, from a file or a pipe; arriving.py: rows from a writer that may pause
images.py           images with expressions; folder.py: images of a folder; expression_file.py: the .txt beside an image
shards.py           the rows of some of the images; grouping.py: neighbouring rows about one image
survey.py           counts rows, and refuses ids that come twice
box_format.py       are gold boxes written as they are read?
files.py            what ids and messages call a file
"""

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
