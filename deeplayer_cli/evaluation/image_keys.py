"""Which rows are about one image: the clusters of intervals, and the pictures of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from deeplayer_cli.schema import Prediction


def image_key(prediction: Prediction) -> Hashable:
    """Equal for rows about one image: its content, or if it was not read, its name and the folder of the row's source.

    A row without an image stands alone.
    """
    return _image_name(prediction) if prediction.image_id is None else ("content", prediction.image_id)


def _image_name(prediction: Prediction) -> Hashable:
    if prediction.image is None:
        return "row", prediction.id
    return "name", prediction.image, (prediction.source or "").rpartition("/")[0]


class ImageKeys:
    """The images of rows: a row that failed before its image was read has the image of other rows about that file."""

    def __init__(self) -> None:
        self._contents: dict[Hashable, Hashable] = {}

    def add(self, prediction: Prediction) -> Hashable:
        """Return the `image_key` of a row."""
        key = image_key(prediction)
        if prediction.image_id is not None:
            self._contents.setdefault(_image_name(prediction), key)
        return key

    def joined(self, images: Iterable[Hashable]) -> list[Hashable]:
        """The keys of rows after all rows were added: names are replaced by contents that became known."""
        return [self._contents.get(image, image) for image in images]


def image_numbers(images: Iterable[Hashable]) -> list[int]:
    """The number of each row's image; images are numbered from 0 in the order of their first row."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(image, len(numbers)) for image in images]
