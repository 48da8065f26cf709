"""The formats that can be imported, each recognised by content.

A reader gets the path of a file and yields examples. Facts about the formats: InternVL ``internvl_chat/eval/refcoco``,
lichengunc/refer, the dataset cards of lmms-lab and jxu124, VLMEvalKit, COCO, Label Studio.
"""

from __future__ import annotations

import base64
import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.formats.imports.example import ImportedExample
from deeplayer_cli.formats.imports.parquet import read_parquet
from deeplayer_cli.formats.imports.refer import read_refer
from deeplayer_cli.formats.imports.splits import name_dataset, name_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import BoxFormat

_IMAGE, _EXPRESSION = ("image", "image_path", "file_name", "filename"), ("expression", "sent", "caption", "question")
_BOX = ("box", "bbox")
_KNOWN = {*_IMAGE, *_EXPRESSION, *_BOX, "width", "height", "id", "meta"}


@dataclass(frozen=True)
class ImportFormat:
    """A format.

    Attributes:
        name: what users call it.
        box_format: its convention, where the format fixes one; None where the user must say.
        recognises: whether a file is in it, from its path.
        read: yields the examples of a file.
    """

    name: str
    box_format: BoxFormat | None
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Iterator[ImportedExample]]


def recognise(path: Path) -> ImportFormat:
    """The format of a file.

    Raises:
        DeeplayerError: none of them, or the file cannot be read.
    """
    with reading(str(path)):
        found = next((one for one in FORMATS if one.recognises(path)), None)
    if found is None:
        known = ", ".join(one.name for one in FORMATS)
        raise DeeplayerError(f"{path} is in none of the formats that can be imported: {known}")
    return found


def _first_bytes(path: Path, count: int = 4096) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count).removeprefix(b"\xef\xbb\xbf").lstrip()


def _first_row(path: Path) -> dict[str, Any]:
    """The first object of a JSON Lines file; empty if it is something else."""
    with path.open("rb") as stream:
        line = stream.readline(2**20).removeprefix(b"\xef\xbb\xbf")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def _columns(path: Path, delimiter: str) -> list[str]:
    if path.suffix.lower() not in (".csv", ".tsv"):
        return []
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return next(csv.reader(stream, delimiter=delimiter), [])


def _example(row: Mapping[str, Any], path: Path) -> ImportedExample:
    """A row with named fields, by our names or InternVL's."""
    image, expression = (next((row[name] for name in names if row.get(name)), None) for names in (_IMAGE, _EXPRESSION))
    if not isinstance(image, str) or not isinstance(expression, str):
        raise DeeplayerError(f"{path}: a row has no image or no expression: {json.dumps(dict(row), default=str)[:80]}")
    box = next((row[name] for name in _BOX if row.get(name) not in (None, "")), None)
    if isinstance(box, str):
        box = json.loads(box)
    if box is None and all(row.get(name) not in (None, "") for name in ("x1", "y1", "x2", "y2")):
        box = [row[name] for name in ("x1", "y1", "x2", "y2")]
    width, height = row.get("width"), row.get("height")
    meta = {name: value for name, value in row.items() if name not in _KNOWN and name not in ("x1", "y1", "x2", "y2")}
    named = {"dataset": name_dataset(path.stem), "split": name_split(path.stem)}
    return ImportedExample(
        image,
        expression,
        None if box is None else tuple(float(number) for number in box),
        (int(width), int(height)) if width and height else None,
        meta={name: value for name, value in named.items() if value} | meta,
    )


def _read_json_lines(path: Path) -> Iterator[ImportedExample]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
                except orjson.JSONDecodeError as error:
                    raise DeeplayerError(f"{path}:{number} is not JSON: {error}") from error
                yield _example(row, path)


def _read_json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DeeplayerError(f"{path} is not JSON: {error}") from error


def _read_json_array(path: Path) -> Iterator[ImportedExample]:
    yield from (_example(row, path) for row in _read_json(path))


def _read_table(path: Path) -> Iterator[ImportedExample]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(newline="", encoding="utf-8-sig") as stream:
        yield from (_example(row, path) for row in csv.DictReader(stream, delimiter=delimiter))


def _read_vlmevalkit(path: Path) -> Iterator[ImportedExample]:
    """VLMEvalKit's RefCOCO.tsv: base64 images, boxes as fractions; an image may be given by another row's index."""
    csv.field_size_limit(2**31 - 1)
    images: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            image = row["image"]
            images[row["index"]] = image = image if len(image) > 64 else images[image]
            category = row.get("category") or path.stem
            meta = {"dataset": name_dataset(category), "split": name_split(category), "category": category}
            yield ImportedExample(
                base64.b64decode(image),
                row["question"],
                tuple(json.loads(row["answer"])),
                image_name=f"{row['index']}.jpg",
                meta={name: value for name, value in meta.items() if value},
            )


def _read_coco(path: Path) -> Iterator[ImportedExample]:
    """COCO detection: the category's name is the expression."""
    dataset = _read_json(path)
    images = {image["id"]: image for image in dataset["images"]}
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    for annotation in dataset["annotations"]:
        image = images[annotation["image_id"]]
        yield ImportedExample(
            image["file_name"],
            annotation.get("caption") or names[annotation["category_id"]],
            tuple(annotation["bbox"]),
            (image["width"], image["height"]) if "width" in image else None,
            meta={"label": names[annotation["category_id"]], "ann_id": annotation["id"], "image_id": image["id"]},
        )


def _read_label_studio(path: Path) -> Iterator[ImportedExample]:
    """Label Studio's exported tasks: rectangles in percent, their labels are the expressions."""
    for task in _read_json(path):
        image = str(task["data"]["image"])
        image = image.rpartition("?d=")[2] or image
        for one in (*task.get("annotations", ()), *task.get("predictions", ())):
            for result in one.get("result", ()):
                if result.get("type") != "rectanglelabels":
                    continue
                value, size = result["value"], (result["original_width"], result["original_height"])
                x, y = value["x"] / 100, value["y"] / 100
                corners = (x, y, x + value["width"] / 100, y + value["height"] / 100)
                for label in value["rectanglelabels"]:
                    meta = {"label": label, "task_id": task.get("id")}
                    yield ImportedExample(image, label, corners, size, meta=meta)


def _is_coco(path: Path) -> bool:
    head = _first_bytes(path)
    return head.startswith(b"{") and path.suffix == ".json" and {"images", "annotations"} <= set(_read_json(path))


def _is_label_studio(path: Path) -> bool:
    if not _first_bytes(path).startswith(b"[") or path.suffix != ".json":
        return False
    content = _read_json(path)
    return bool(content) and isinstance(content[0], dict) and "data" in content[0]


FORMATS = (
    ImportFormat("lmms-lab and jxu124 parquet", "xywh", lambda path: _first_bytes(path, 4) == b"PAR1", read_parquet),
    ImportFormat("refer's refs(...).p", "xywh", lambda path: path.suffix == ".p", read_refer),
    ImportFormat(
        "VLMEvalKit TSV",
        "unit",
        lambda path: {"index", "image", "question", "answer"} <= set(_columns(path, "\t")),
        _read_vlmevalkit,
    ),
    ImportFormat(
        "InternVL JSON Lines",
        "xyxy",
        lambda path: {"image", "sent", "bbox"} <= _first_row(path).keys(),
        _read_json_lines,
    ),
    ImportFormat("COCO JSON", "xywh", _is_coco, _read_coco),
    ImportFormat("Label Studio tasks", "unit", _is_label_studio, _read_label_studio),
    ImportFormat("JSON array", None, lambda path: _first_bytes(path).startswith(b"["), _read_json_array),
    ImportFormat("JSON Lines", None, lambda path: bool(_first_row(path)), _read_json_lines),
    ImportFormat(
        "CSV or TSV with named columns",
        None,
        lambda path: bool(set(_columns(path, ",")) | set(_columns(path, "\t"))),
        _read_table,
    ),
)
"""In the order in which they are tried: the particular ones first."""
