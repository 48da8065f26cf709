"""Label Studio's exported tasks: rectangles in percent of the image; their labels are the expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample
from deeplayer_cli.formats.imports.json_stream import array_items
from deeplayer_cli.schema.values import four_numbers, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import Example

_RECTANGLE = ("x", "y", "width", "height")  # in percent of the image


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
        number = task.get("id") if isinstance(task, dict) else None
        try:
            image = _image_of(task["data"])
            made = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
            results = [result for one in made or task.get("predictions") or [] for result in one.get("result") or []]
        except (AttributeError, KeyError, TypeError) as error:
            yield BadExample(_misplaced(number, error))
            continue
        for result in results:
            try:
                yield from _examples(result, image, number)
            except RowError as error:
                yield BadExample(error)
            except (AttributeError, KeyError, TypeError) as error:
                yield BadExample(_misplaced(number, error))


def _misplaced(task: object, error: Exception) -> RowError:
    what = f"it has no {error}" if isinstance(error, KeyError) else "its data or its results have another form"
    return RowError("bad_row", f"task {show(task)} is not as Label Studio exports tasks: {what}")


def _examples(result: dict[str, Any], image: str, task: object) -> Iterator[Example]:
    if result.get("type") != "rectanglelabels":
        return
    value, size = result["value"], (result["original_width"], result["original_height"])
    labels, numbers = value["rectanglelabels"], [value[name] for name in _RECTANGLE]
    if value.get("rotation"):
        raise RowError("bad_box", f"task {show(task)} has a rotated box, which is no box here")
    if not isinstance(labels, list):
        raise RowError("bad_row", f"task {show(task)}: rectanglelabels must be a list of labels, not {show(labels)}")
    try:
        x, y, width, height = (number / 100 for number in four_numbers("box", numbers))
    except ValueError as error:
        told = ", ".join(f"{name} {show(number)}" for name, number in zip(_RECTANGLE, numbers, strict=True))
        raise RowError("bad_box", f"task {show(task)}: a rectangle must be four finite numbers, not {told}") from error
    for label in labels:
        yield ImportedExample(image, label, [x, y, x + width, y + height], size, meta={"label": label, "task_id": task})


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
