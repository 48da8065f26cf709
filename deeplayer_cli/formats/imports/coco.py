"""COCO's JSON: detection, where a category's name is the expression, and MDETR's grounding files, with captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample
from deeplayer_cli.formats.imports.json_stream import object_members
from deeplayer_cli.formats.imports.splits import names_in
from deeplayer_cli.schema.values import show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import Example

_Item = TypeVar("_Item")

_IMAGE_FIELDS = ("file_name", "width", "height", "caption", "dataset_name", "original_id")


def is_coco(path: Path) -> bool:
    """Whether a document is an object with COCO's lists; the first item of one of them decides."""
    try:
        for name, value in object_members(path):
            if name == "images" and isinstance(value, dict):
                return "file_name" in value
            if name == "annotations" and isinstance(value, dict):
                return {"image_id", "bbox"} <= value.keys()
    except DeeplayerError:
        pass
    return False


def read_coco(path: Path) -> Iterator[Example]:
    """One example an annotation with a box; boxes are xywh in pixels."""
    images, names = read_images(path)
    named = names_in(path.name)
    for member, one in object_members(path):
        if member == "annotations":
            try:
                yield _example(one, images, names, named)
            except RowError as error:
                yield BadExample(RowError(error.kind, f"annotation {_id_of(one)} {error}"))
            except KeyError as error:
                yield BadExample(RowError("bad_row", f"annotation {_id_of(one)} has no {error}"))
            except (TypeError, IndexError):
                yield BadExample(RowError("bad_row", f"annotation {_id_of(one)} is not written as COCO writes them"))


def read_images(path: Path) -> tuple[dict[Any, dict[str, Any]], dict[Any, str]]:
    """Images by id, with the fields that are used, and category names by id.

    Raises:
        DeeplayerError: an image or a category has no id or no name.
    """
    images: dict[Any, dict[str, Any]] = {}
    names: dict[Any, str] = {}
    for member, one in object_members(path):
        try:
            if member == "images":
                images[one["id"]] = {name: one[name] for name in _IMAGE_FIELDS if name in one}
            elif member == "categories":
                names[one["id"]] = one["name"]
        except (KeyError, TypeError) as error:
            raise DeeplayerError(f"{path}: an item of {member!r} has no {error}") from error
    return images, names


def stated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of an image as COCO states them, if it does."""
    return (image["width"], image["height"]) if image.get("width") and image.get("height") else None


def _example(
    one: Mapping[str, Any], images: Mapping[Any, dict[str, Any]], names: Mapping[Any, str], named: dict[str, object]
) -> ImportedExample:
    image = _named_by(one, "image_id", images)
    if "file_name" not in image:
        raise RowError("bad_row", f"has the image_id {show(one['image_id'])}, and that image has no 'file_name'")
    caption, dataset = image.get("caption"), image.get("dataset_name")
    meta = named | {"ann_id": one["id"], "image_id": image.get("original_id", one["image_id"])}
    if dataset:
        meta |= names_in(str(dataset)) or {"dataset": dataset}
    if caption is not None:  # MDETR: an image for each caption; a referring expression is the caption, a phrase a part
        spans = [] if str(dataset).startswith("refcoco") else one.get("tokens_positive") or []
        expression = " ".join(caption[start:end] for start, end in spans) or caption
    else:
        label = _named_by(one, "category_id", names)
        meta["label"] = label
        expression = one.get("caption") or label
    if one.get("iscrowd"):
        meta["iscrowd"] = 1
    return ImportedExample(image["file_name"], expression, one["bbox"], stated_size(image), meta=meta)


def _named_by(one: Mapping[str, Any], field: str, found: Mapping[Any, _Item]) -> _Item:
    """The image or the category that an annotation names.

    Raises:
        RowError: there is none with this id.
        KeyError: the annotation does not name one.
    """
    item = found.get(one[field])
    if item is None:
        raise RowError("bad_row", f"has the {field} {show(one[field])}, and nothing in the file has this id")
    return item


def _id_of(one: object) -> object:
    return one.get("id", "without an id") if isinstance(one, dict) else "that is no object"
