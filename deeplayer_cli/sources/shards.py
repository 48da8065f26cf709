"""Shards: the rows of some of the images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from deeplayer_cli.schema import BadRequest, Request, in_text
from deeplayer_cli.schema.row_ids import Ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def rows_of_shard(rows: Iterable[Request | BadRequest], index: int, count: int) -> Iterator[Request | BadRequest]:
    """Yield the rows that belong to one of ``count`` shards; rows are streamed.

    Images are dealt out in turn, in the order in which they first occur, and all rows about an image go to its shard.
    The resolved path identifies an image; no file is opened. A bad row goes with the row before it. So the shards
    depend on the order of the rows only, not on the machine. This takes up to 16 bytes of memory per image.

    Args:
        rows: in the order of their source.
        index: of the shard, from 0.
        count: of shards.
    """
    seen, dealt_here = Ids(), Ids()
    n_images = 0
    path: Path | None = None
    is_here = index == 0  # for bad rows before the first image
    for row in rows:
        if isinstance(row, Request) and row.path != path:
            path = row.path
            image = in_text(os.path.realpath(path))
            if seen.add(image):
                is_here = n_images % count == index
                n_images += 1
                if is_here:
                    dealt_here.add(image)
            else:
                is_here = image in dealt_here
        if is_here:
            yield row
