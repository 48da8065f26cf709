"""Label Studio's exported tasks: rectangles in percent of the image; their labels are the expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample
from deeplayer_cli.formats.imports.json_stream import array_items

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import Example


def is_label_studio(path: Path) -> bool:
    """Whether a document is an array of tasks, by its first item."""
    try:
        first = next(array_items(path), None)
    except DeeplayerError:
        return False
    return isinstance(first, dict) and isinstance(first.get("data"), dict)


def read_label_studio(path: Path) -> Iterator[Example]:
    """One example a label of a rectangle: of the annotations, or of the predictions if nobody annotated the task.

    Boxes become corners in fractions of the image.
    """
    for task in array_items(path):
        try:
            yield from _examples(task)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            number = task.get("id") if isinstance(task, dict) else None
            yield BadExample(RowError("bad_row", f"task {number} has no {error} where Label Studio writes it"))


def _examples(task: dict[str, Any]) -> Iterator[Example]:
    image = _image_of(task["data"])
    made = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
    for one in made or task.get("predictions") or []:
        for result in one.get("result") or []:
            if result.get("type") != "rectanglelabels":
                continue
            value, size = result["value"], (result["original_width"], result["original_height"])
            if value.get("rotation"):
                yield BadExample(RowError("bad_box", f"task {task.get('id')} has a rotated box, which is no box here"))
                continue
            x, y = value["x"] / 100, value["y"] / 100
            corners = [x, y, x + value["width"] / 100, y + value["height"] / 100]
            for label in value["rectanglelabels"]:
                meta = {"label": label, "task_id": task.get("id")}
                yield ImportedExample(image, label, corners, size, meta=meta)


def _image_of(data: dict[str, Any]) -> str:
    """The path in a task's image: of local files behind ``?d=``, of uploads and URLs their path."""
    named = [data[name] for name in ("image", "img", "url") if isinstance(data.get(name), str)]
    value = next(iter([*named, *(text for text in data.values() if isinstance(text, str))]), None)
    if value is None:
        raise KeyError("image")
    if "?d=" in value:
        return unquote(value.rpartition("?d=")[2])
    parts = urlsplit(value)
    return unquote(parts.path) if parts.scheme else value
