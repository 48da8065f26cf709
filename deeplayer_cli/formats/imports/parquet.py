"""RefCOCO as parquet: lmms-lab's, with images inside, and jxu124's, with paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.example import ImportedExample
from deeplayer_cli.formats.imports.splits import name_dataset, name_split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROWS = 256  # held at a time: images lie in the file


def read_parquet(path: Path) -> Iterator[ImportedExample]:
    """One example for each expression of each object; boxes are xywh in pixels.

    Raises:
        DeeplayerError: pyarrow is missing, or the file has other columns.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DeeplayerError(f"{path} needs pyarrow to be read: pip install 'deeplayer[data]'") from error
    file = ParquetFile(path)
    columns = set(file.schema_arrow.names)
    if {"question_id", "image", "answer", "bbox"} <= columns:
        read = _read_lmms
    elif {"sentences", "bbox", "image_path"} <= columns:
        read = _read_jxu
    else:
        raise DeeplayerError(f"{path} is no RefCOCO file: its columns are {', '.join(sorted(columns))}")
    name = f"{path.parent.name}/{path.name}"
    named = {"dataset": name_dataset(name), "split": name_split(path.name)}
    for batch in file.iter_batches(_ROWS):
        for row in batch.to_pylist():
            yield from read(row, {key: value for key, value in named.items() if value})


def _read_lmms(row: dict[str, Any], named: dict[str, Any]) -> Iterator[ImportedExample]:
    for number, answer in enumerate(row["answer"]):
        meta = {**named, "question_id": row["question_id"], "sentence": number}
        name = row.get("file_name") or row["image"].get("path") or f"{row['question_id']}.jpg"
        yield ImportedExample(row["image"]["bytes"], answer, tuple(row["bbox"]), image_name=name, meta=meta)


def _read_jxu(row: dict[str, Any], named: dict[str, Any]) -> Iterator[ImportedExample]:
    info = row.get("raw_image_info")
    size = orjson.loads(info) if isinstance(info, str) else {}
    ids = {name: row[name] for name in ("ref_id", "ann_id", "image_id", "split") if row.get(name) is not None}
    for sentence in row["sentences"]:
        text = sentence if isinstance(sentence, str) else sentence["sent"]
        yield ImportedExample(
            row["image_path"],
            text,
            tuple(_box(row)),
            (size["width"], size["height"]) if "width" in size else None,
            meta={**named, **ids},
        )


def _box(row: dict[str, Any]) -> list[float]:
    """The box of the annotation, which is xywh by COCO's own rule; the column ``bbox`` has no stated convention."""
    annotation = row.get("raw_anns")
    return list((orjson.loads(annotation) if isinstance(annotation, str) else row)["bbox"])
