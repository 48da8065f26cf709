"""RefCOCO as parquet: lmms-lab's, with images inside, and jxu124's, with paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample
from deeplayer_cli.formats.imports.splits import name_dataset, name_split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import Example

_ROWS = 64  # held at a time: images lie in the file


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet does."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def read_parquet(path: Path) -> Iterator[Example]:
    """One example for each expression of each object; boxes are xywh in pixels.

    Raises:
        DeeplayerError: pyarrow is missing, or the file is broken or has other columns.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DeeplayerError(f"{path} needs pyarrow to be read: pip install 'deeplayer[data]'") from error
    try:
        file = ParquetFile(path)
        columns = set(file.schema_arrow.names)
        read = next((read for needed, read in _LAYOUTS if needed <= columns), None)
        if read is None:
            raise DeeplayerError(f"{path} is no RefCOCO file: its columns are {', '.join(sorted(columns))}")
        named = {"dataset": name_dataset(f"{path.parent.name}/{path.name}"), "split": name_split(path.name)}
        named = {key: value for key, value in named.items() if value}
        for batch in file.iter_batches(_ROWS):
            for row in batch.to_pylist():
                try:
                    yield from read(row, dict(named))
                except (KeyError, TypeError, ValueError) as error:
                    yield BadExample(RowError("bad_row", f"the row has no usable {error}"))
    except (ArrowException, OSError) as error:
        raise DeeplayerError(f"{path} cannot be read as parquet: {error}") from error


def _read_lmms(row: dict[str, Any], named: dict[str, Any]) -> Iterator[Example]:
    image = row["image"]
    name = row.get("file_name") or image.get("path") or f"{row['question_id']}.jpg"
    for number, answer in enumerate(row["answer"]):
        meta = named | {"question_id": row["question_id"], "sentence": number}
        yield ImportedExample(image["bytes"], answer, row["bbox"], image_name=name, meta=meta)


def _read_jxu(row: dict[str, Any], named: dict[str, Any]) -> Iterator[Example]:
    size = _object(row.get("raw_image_info"))
    ids = {name: row[name] for name in ("ref_id", "ann_id", "image_id", "split") if row.get(name) is not None}
    # xywh by COCO's own rule; the column ``bbox`` has no stated format
    box = _object(row["raw_anns"])["bbox"]
    for sentence in row["sentences"]:
        text = sentence if isinstance(sentence, str) else sentence["sent"]
        resolution_wh = (size["width"], size["height"]) if "width" in size else None
        yield ImportedExample(row["image_path"], text, box, resolution_wh, meta=named | ids)


def _object(text: object) -> dict[str, Any]:
    found = orjson.loads(text) if isinstance(text, str) else text
    return found if isinstance(found, dict) else {}


_LAYOUTS = (
    ({"question_id", "image", "answer", "bbox"}, _read_lmms),
    ({"sentences", "raw_anns", "image_path"}, _read_jxu),
)
"""The columns of each layout, and its reader."""
