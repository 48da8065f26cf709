"""Reads gold files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import BadRequest, BoxFormatCheck, GoldReader
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.boxes import Box, BoxFormat
    from deeplayer_cli.schema import Id

logger = logging.getLogger("deeplayer")

_REFUSED = frozenset({"bad_json", "bad_row", "row_too_long", "bad_id", "bad_box"})
"""Errors of a row that leave its id or its box unknown."""


def read_gold(path: Path, box_format: BoxFormat | None = None) -> dict[Id, Box]:
    """Read the gold boxes of a file of requests, by id; a row needs only an ``id`` and a box.

    A row without an id gets the id ``FOLDER/FILE:LINE``, as in `ground`. Rows without a box are left out, and a
    warning says how many.

    Args:
        path: of the file.
        box_format: how the boxes are written; None for corners in pixels, unless that is doubtful.

    Returns:
        The boxes as they are written; `score` converts them, as it knows the sizes of the images.

    Raises:
        DeeplayerError: the file cannot be read, no row has a box, a row has an invalid id or box, an id comes twice, or
            the boxes are not corners in pixels, and ``box_format`` does not say what they are.
    """
    gold: dict[Id, Box] = {}
    check, n_without_box = BoxFormatCheck(), 0
    problems: list[str] = []
    for row in JsonLines(path, gold_reader=GoldReader(box_format)).rows():
        if row.written is not None:
            check.add(row.written.numbers, row.written.resolution_wh)
        if isinstance(row, BadRequest) and row.error.kind in _REFUSED:
            problems.append(row.error.message)
        elif row.written is None:
            n_without_box += 1
        elif row.id in gold:
            problems.append(f"{row.where}: id {row.id!r} comes twice")
        else:
            gold[row.id] = row.written.numbers
    if box_format is None and (doubt := check.doubt()):
        raise DeeplayerError(f"{path}: {doubt}")
    if problems:
        more = f" (and {counted(len(problems) - 1, 'row')} more)" if len(problems) > 1 else ""
        raise DeeplayerError(f"{path} is not a gold file: {problems[0]}{more}")
    if not gold:
        raise DeeplayerError(f"{path} is not a gold file: no row of {n_without_box} has a box")
    if n_without_box:
        logger.warning(
            "%s: left out without a box: %d of %s", path, n_without_box, counted(n_without_box + len(gold), "row")
        )
    return gold
