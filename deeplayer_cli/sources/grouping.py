"""Groups of rows about one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import BadRequest, Request, in_text
from deeplayer_cli.schema.row_ids import Ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Item = TypeVar("_Item")


def by_image(items: Iterable[_Item], request_of: Callable[[_Item], Request | BadRequest]) -> Iterator[list[_Item]]:
    """Yield lists of neighbouring items about one image; a bad request joins the list before it.

    Args:
        items: in the order of their source.
        request_of: returns the request of an item.

    Raises:
        DeeplayerError: an image occurs again after other images.
    """
    group: list[_Item] = []
    path, seen = None, Ids()
    for item in items:
        request = request_of(item)
        if isinstance(request, Request) and request.path != path:
            if group:
                yield group
            group, path = [], request.path
            if not seen.add(in_text(path)):
                raise DeeplayerError(
                    f"{request.where}: the rows about {request.image} do not follow each other: --share union answers "
                    "all rows of an image together, so sort the rows by image"
                )
        group.append(item)
    if group:
        yield group
