"""The formats that can be imported, each recognised by content, not by name.

Facts about the formats: InternVL ``internvl_chat/eval/refcoco``, lichengunc/refer, the dataset cards of lmms-lab and
jxu124, VLMEvalKit ``vlmeval/dataset/refcoco.py``, BryanPlummer/flickr30k_entities, MDETR, COCO, Label Studio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deeplayer_cli.errors import DeeplayerError, not_one_of, reading
from deeplayer_cli.formats.imports.coco import is_coco, read_coco
from deeplayer_cli.formats.imports.flickr30k import is_flickr30k, read_flickr30k
from deeplayer_cli.formats.imports.json_stream import array_items
from deeplayer_cli.formats.imports.label_studio import is_label_studio, read_label_studio
from deeplayer_cli.formats.imports.named import (
    EXPRESSION_NAMES,
    IMAGE_NAMES,
    first_objects,
    header_of,
    read_json_array,
    read_json_lines,
    read_table,
)
from deeplayer_cli.formats.imports.parquet import is_parquet, read_parquet
from deeplayer_cli.formats.imports.refer import is_pickle, read_refer
from deeplayer_cli.formats.imports.vlmevalkit import is_vlmevalkit, read_vlmevalkit
from deeplayer_cli.schema.values import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deeplayer_cli.boxes import BoxFormat
    from deeplayer_cli.formats.imports.example import Example

AUTO = "auto"

_TABLES = frozenset({".csv", ".tsv"})
"""Endings of files that are meant as tables."""


@dataclass(frozen=True)
class ImportFormat:
    """A format.

    Attributes:
        name: for ``--from-format``.
        title: for messages.
        box_format: how its boxes are written, where the format fixes it; None where its rows or the user must say.
        recognises: whether a path is in it.
        read: yields the examples of a path.
    """

    name: str
    title: str
    box_format: BoxFormat | None
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Example]]


def recognise(path: Path, name: str = AUTO) -> ImportFormat:
    """The format of a file or a folder.

    Args:
        path: of the file.
        name: of the format that it must have; ``auto`` for any.

    Raises:
        DeeplayerError: there is no such format, the path is in none or in another, or it cannot be read.
    """
    if name not in NAMES:
        raise DeeplayerError(not_one_of("--from-format", name, NAMES))
    with reading(str(path)):
        if str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
            raise DeeplayerError(f"{path} can be read only once, and its format is recognised before: name a file")
        path.stat()
        found = next((one for one in FORMATS if _recognises(one, path)), None)
    wanted = next((one for one in FORMATS if one.name == name), found)
    if found is None:
        raise DeeplayerError(_unrecognised(path))
    if wanted is not None and found is not wanted:
        if not _recognises(wanted, path):
            raise DeeplayerError(f"{path} is no {wanted.title}; it looks like {found.title}: give --from-format auto")
        found = wanted
    return found


def _unrecognised(path: Path) -> str:
    if path.is_file() and not path.stat().st_size:
        return f"{path} is empty: there is nothing to import"
    if path.is_file() and path.suffix.lower() in _TABLES:
        return (
            f"{path} has the columns {show(header_of(path))}: a table needs one with the image "
            f"({', '.join(IMAGE_NAMES)}) and one with the expression ({', '.join(EXPRESSION_NAMES)}), in UTF-8, with "
            "commas, tabs or semicolons between the columns"
        )
    return f"{path} is in none of the formats that can be imported: {', '.join(one.title for one in FORMATS)}"


def _recognises(form: ImportFormat, path: Path) -> bool:
    return path.is_dir() == (form.recognises is is_flickr30k) and form.recognises(path)


def _is_json_array(path: Path) -> bool:
    try:
        return isinstance(next(array_items(path), {}), dict)
    except DeeplayerError:
        return False


def _first_row(path: Path) -> dict[str, Any]:
    """The object in the first line of a file; empty if it is something else."""
    return next(iter(first_objects(path, 1)), {})


def _is_internvl(path: Path) -> bool:
    return {"image", "sent", "bbox"} <= _first_row(path).keys()


def _is_requests(path: Path) -> bool:
    return {"image", "expression"} <= _first_row(path).keys() and "bbox" not in _first_row(path)


def _is_json_lines(path: Path) -> bool:
    return bool(_first_row(path).keys() & set(IMAGE_NAMES))


def _is_table(path: Path) -> bool:
    columns = set(header_of(path))
    return bool(columns & set(IMAGE_NAMES)) and bool(columns & set(EXPRESSION_NAMES))


FORMATS = (
    ImportFormat("flickr30k", "Flickr30k Entities", "xyxy", is_flickr30k, read_flickr30k),
    ImportFormat("parquet", "RefCOCO as parquet (lmms-lab's or jxu124's)", "xywh", is_parquet, read_parquet),
    ImportFormat("refer", "refer's refs(...).p", "xywh", is_pickle, read_refer),
    ImportFormat("vlmevalkit", "VLMEvalKit TSV", "unit", is_vlmevalkit, read_vlmevalkit),
    ImportFormat("internvl", "InternVL JSON Lines", "xyxy", _is_internvl, read_json_lines),
    ImportFormat("requests", "deeplayer's requests", "xyxy", _is_requests, read_json_lines),
    ImportFormat("coco", "COCO JSON", "xywh", is_coco, read_coco),
    ImportFormat("labelstudio", "Label Studio tasks", "unit", is_label_studio, read_label_studio),
    ImportFormat("jsonl", "JSON Lines", None, _is_json_lines, read_json_lines),
    ImportFormat("json", "JSON array", None, _is_json_array, read_json_array),
    ImportFormat("csv", "CSV or TSV with named columns", None, _is_table, read_table),
)
"""In the order in which they are tried: the particular ones first."""

NAMES = (AUTO, *(one.name for one in FORMATS))
