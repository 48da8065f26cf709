"""Flickr30k Entities: a folder with ``Sentences/ID.txt`` and ``Annotations/ID.xml``.

The layout is that of BryanPlummer/flickr30k_entities.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from deeplayer_cli.errors import DeeplayerError, RowError, reading
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.formats.imports.example import Example

MAX_FILE_BYTES = 2**22
"""The largest file of sentences or annotations that is read, in bytes."""

_PHRASE = re.compile(r"\[/EN#(\d+)((?:/\w+)+) ([^\]]+)\]")
_SPLITS = ("train", "val", "test")


def is_flickr30k(path: Path) -> bool:
    """Whether a path is a folder with both subfolders."""
    return (path / "Sentences").is_dir() and (path / "Annotations").is_dir()


def read_flickr30k(path: Path) -> Iterator[Example]:
    """One example for each phrase of each sentence that has boxes; boxes are corners in pixels.

    A phrase of several boxes gets the smallest box around all of them, as the merged-boxes protocol does; they are in
    ``meta["boxes"]`` one by one. ``train.txt``, ``val.txt`` and ``test.txt`` in the folder name the splits.
    """
    split_of = _read_splits(path)
    with reading(str(path)):
        files = sorted((path / "Sentences").glob("*.txt"))
    for sentences in files:
        try:
            yield from _examples(sentences, path / "Annotations" / f"{sentences.stem}.xml", split_of)
        except (DeeplayerError, ElementTree.ParseError, ValueError, TypeError) as error:
            yield BadExample(RowError("bad_row", f"image {sentences.stem} has no usable annotations: {error}"))


def _examples(sentences: Path, annotations: Path, split_of: Mapping[str, str]) -> Iterator[Example]:
    boxes, resolution_wh = _read_boxes(annotations)
    name = sentences.stem
    meta: dict[str, object] = {"dataset": "flickr30k-entities"}
    if name in split_of:
        meta["split"] = split_of[name]
    for number, line in enumerate(_read(sentences).decode("utf-8", "replace").splitlines()):
        for chain, kinds, phrase in _PHRASE.findall(line):
            if found := boxes.get(chain):
                own = {"image_id": name, "sentence": number, "phrase_id": chain, "phrase_type": kinds.strip("/")}
                several = {"boxes": [list(box) for box in found]} if len(found) > 1 else {}
                yield ImportedExample(f"{name}.jpg", phrase, _around(found), resolution_wh, meta=meta | own | several)


def _read_boxes(path: Path) -> tuple[dict[str, list[Box]], Resolution]:
    """Boxes by phrase id, and the image's size; the files count pixels from 1."""
    root = ElementTree.fromstring(_read(path))  # noqa: S314 - expat limits how much entities may grow
    boxes: dict[str, list[Box]] = {}
    for thing in root.iter("object"):
        corners = thing.find("bndbox")
        if corners is None:
            continue
        x1, y1, x2, y2 = (float(corners.findtext(tag, "")) - 1 for tag in ("xmin", "ymin", "xmax", "ymax"))
        for name in thing.findall("name"):
            boxes.setdefault(name.text or "", []).append((x1, y1, x2, y2))
    return boxes, (int(root.findtext("size/width", "")), int(root.findtext("size/height", "")))


def _around(boxes: list[Box]) -> list[float]:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return [min(x1), min(y1), max(x2), max(y2)]


def _read_splits(folder: Path) -> dict[str, str]:
    return {
        name: split
        for split in _SPLITS
        if (folder / f"{split}.txt").is_file()
        for name in _read(folder / f"{split}.txt").decode("utf-8", "replace").split()
    }


def _read(path: Path) -> bytes:
    with reading(str(path)), path.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise DeeplayerError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes, the most that is read")
    return content
