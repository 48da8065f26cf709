"""Examples to requests: images found, boxes converted, and everything that did not work counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, RowError, writing
from deeplayer_cli.formats.imports.example import BOX_FORMATS, RELATIVE_FORMATS, to_xyxy
from deeplayer_cli.formats.imports.images import ImageFinder
from deeplayer_cli.formats.imports.readers import recognise
from deeplayer_cli.formats.imports.splits import check_splits
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.sinks import disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.formats.imports.example import BoxFormat, ImportedExample

_LOOKED_AT, _ENOUGH = 500, 20  # examples that are looked at, and boxes among them that can contradict a convention
_MANY, _NEARLY_ALL = 0.1, 0.9


@dataclass
class Importer:
    """Turns examples into requests.

    Attributes:
        box_format: the convention of the boxes.
        images: finds image files; None leaves paths as they are.
        embedded: folder for images that come inside the file.
        counts: expressions by dataset and split.
    """

    box_format: BoxFormat
    images: ImageFinder | None
    embedded: Path
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _objects: dict[tuple[str, str], set[object]] = field(default_factory=dict, repr=False)

    def requests(self, examples: Iterable[ImportedExample]) -> Iterator[dict[str, object]]:
        """One request an example, in order.

        Raises:
            DeeplayerError: a box cannot be converted.
        """
        for example in examples:
            image = self._place(example)
            box = example.numbers and to_xyxy(example.numbers, self.box_format, self._resolution(example, image))
            self._count(example, image)
            row: dict[str, object] = {"image": image, "expression": example.expression}
            if box:
                row["box"] = [round(number, 2) for number in box]
            if example.resolution_wh:
                row["width"], row["height"] = example.resolution_wh
            yield row | {name: value for name, value in example.meta.items() if name not in row}

    def warnings(self) -> list[str]:
        """A sentence for each split with an unexpected count, and one for images that were not found."""
        objects = Counter({split: len(found) for split, found in self._objects.items()})
        said = check_splits(self.counts, objects)
        if self.images and self.images.missing:
            first, rows = next(iter(self.images.missing)), sum(self.images.missing.values())
            said.append(
                f"{len(self.images.missing)} images of {rows} rows were not found in {self.images.folder}, "
                f"the first is {first}"
            )
        return said

    def _resolution(self, example: ImportedExample, image: str) -> Resolution | None:
        """Width and height that the file states, else the image's own, where the convention needs them."""
        if example.resolution_wh or self.box_format not in RELATIVE_FORMATS:
            return example.resolution_wh
        try:
            return read_size(Path(image))
        except RowError as error:
            raise DeeplayerError(f"boxes as {self.box_format} need the size of their image: {error}") from error

    def _place(self, example: ImportedExample) -> str:
        if isinstance(example.image, bytes):
            path = self.embedded / Path(example.image_name or "image.jpg").name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(example.image)
            return str(path.resolve())
        if self.images is None:
            return example.image
        found = self.images.find(example.image)
        return example.image if found is None else str(found.resolve())

    def _count(self, example: ImportedExample, image: str) -> None:
        dataset, split = example.meta.get("dataset"), example.meta.get("split")
        if isinstance(dataset, str) and isinstance(split, str):
            self.counts[dataset, split] += 1
            names = ("ref_id", "ann_id", "question_id")
            thing = next((example.meta[name] for name in names if name in example.meta), (image, example.numbers))
            self._objects.setdefault((dataset, split), set()).add(thing)


@dataclass(frozen=True)
class ImportSummary:
    """What an import came to.

    Attributes:
        n_rows: requests that were written.
        formats: of the files, by name.
        warnings: a sentence each.
    """

    n_rows: int
    formats: list[str]
    warnings: list[str]


def import_files(
    sources: Sequence[Path], output: Path, images: Path | None, box_format: BoxFormat | None
) -> ImportSummary:
    """Read files of any known format, and write their examples as requests.

    Args:
        sources: files, read one after the other.
        output: a JSONL file.
        images: folder to search image files in.
        box_format: the convention of the boxes, instead of the format's own.

    Raises:
        DeeplayerError: a file cannot be read, is in no known format, or does not say how its boxes are written.
    """
    finder = ImageFinder(images) if images is not None else None
    embedded = output.with_name(f"{output.name}.images")
    known = [(path, recognise(path)) for path in sources]
    wanted = [
        require_box_format(box_format, form.box_format, islice(form.read(path), _LOOKED_AT), path)
        for path, form in known
    ]
    n_rows, warnings = 0, []
    partial = output.with_name(f"{output.name}.partial")  # a source that breaks half way leaves the output as it was
    with writing(str(output)), partial.open("wb") as stream:
        for (path, form), convention in zip(known, wanted, strict=True):
            importer = Importer(convention, finder, embedded)
            for row in importer.requests(form.read(path)):
                stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                n_rows += 1
            warnings += importer.warnings()
        stream.flush()
        disk.sync(stream.fileno())
        disk.replace(partial, output)
    return ImportSummary(n_rows, list(dict.fromkeys(form.name for _, form in known)), warnings)


def require_box_format(
    given: BoxFormat | None, fixed: BoxFormat | None, examples: Iterable[ImportedExample], path: Path
) -> BoxFormat:
    """The convention of a file's boxes: what the user said, else what the format fixes, and never a guess.

    Args:
        given: by the user.
        fixed: by the format.
        examples: the first ones of the file.
        path: of the file, for messages.

    Raises:
        DeeplayerError: nobody says, or many boxes contradict what the format fixes; the sentence names the option.
    """
    boxes = [(example.numbers, example.resolution_wh) for example in examples if example.numbers is not None]
    if given is None and fixed is None:
        if boxes:
            raise DeeplayerError(
                f"{path} does not say how its boxes are written: give --box-format {', '.join(BOX_FORMATS)}"
            )
        return "xyxy"
    box_format = given or fixed or "xyxy"
    numbers = [found for found, _ in boxes]
    if given is None and len(boxes) >= _ENOUGH and (doubt := _doubt(box_format, numbers)):
        raise DeeplayerError(
            f"{path}: boxes should be {box_format}, but {doubt}; give --box-format to say what is true"
        )
    return box_format


def _doubt(box_format: BoxFormat, boxes: Sequence[Sequence[float]]) -> str | None:
    """What speaks against a convention, as the middle of a sentence."""
    flipped = sum(box[2] <= box[0] or box[3] <= box[1] for box in boxes) / len(boxes)
    in_unit = sum(max(box) <= 1 for box in boxes) / len(boxes)
    if box_format == "xyxy" and flipped > _MANY:
        return f"{flipped:.0%} of the first {len(boxes)} have x2 <= x1 or y2 <= y1, as xywh would"
    if box_format in ("xyxy", "xywh", "cxcywh") and in_unit > _NEARLY_ALL:
        return f"{in_unit:.0%} of the first {len(boxes)} lie in 0..1, as unit boxes would"
    return None
