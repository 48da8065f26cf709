"""Rows of one image, taken together."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import BadRequest, Request
from deeplayer_cli.schema.row_ids import Ids
from deeplayer_cli.sources.files import in_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Item = TypeVar("_Item")


def by_image(items: Iterable[_Item], request_of: Callable[[_Item], Request | BadRequest]) -> Iterator[list[_Item]]:
    """Lists of neighbouring items about one image; a bad request joins those before it.

    Args:
        items: in order.
        request_of: finds an item's request.

    Raises:
        DeeplayerError: an image comes again after others.
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
                    f"{request.where}: {request.image} came up before, and other images since: --share union takes "
                    "all rows of an image together, so sort them by image"
                )
        group.append(item)
    if group:
        yield group
