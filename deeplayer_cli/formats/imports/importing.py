"""Examples to requests: images found, boxes converted, and everything that did not work counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.imports.example import BadExample, EarlierImage
from deeplayer_cli.formats.imports.images import ImageFinder, coco_image_id, write_image
from deeplayer_cli.formats.imports.recognise import AUTO, recognise
from deeplayer_cli.formats.imports.splits import SplitCounts
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.schema import OWN_FIELDS, BadRequest, BoxFormatCheck, GoldReader, Request, parse_request
from deeplayer_cli.schema.gold import read_numbers
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sinks import refuse_twice
from deeplayer_cli.sinks.output_file import replacing
from deeplayer_cli.sources.files import file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from deeplayer_cli.boxes import BoxFormat, Resolution
    from deeplayer_cli.formats.imports.example import Example, ImportedExample
    from deeplayer_cli.formats.imports.recognise import ImportFormat

_LOOKED_AT = 500  # examples
_HINT = "--image-root FOLDER is searched for the images by the longest tail of their path"


@dataclass(frozen=True)
class ImportOptions:
    """How files are imported.

    Attributes:
        form: the format's name; ``auto`` recognises it.
        images: folder to search image files in, with links followed; None for the folder of each file, or wherever a
            path leads.
        embedded: folder for images that lie inside a file; None refuses such files.
        box_format: how boxes are written, instead of the format's own rule.
        size_of: width and height of an image file, for boxes that are relative to it.
        confined: refuse images outside of ``images``.
    """

    form: str = AUTO
    images: Path | None = None
    embedded: Path | None = None
    box_format: BoxFormat | None = None
    size_of: Callable[[Path], Resolution] = read_size
    confined: bool = False


@dataclass
class FileImporter:
    """One file, and how it is read.

    Attributes:
        path: of the file.
        form: its format.
        gold_reader: reads its boxes, unless a row says how its own is written.
        options: see there.
        finder: finds its images.
    """

    path: Path
    form: ImportFormat
    gold_reader: GoldReader
    options: ImportOptions
    finder: ImageFinder

    @classmethod
    def from_path(cls, path: Path, options: ImportOptions) -> FileImporter:
        """Recognise a file, and agree on the format of its boxes.

        Raises:
            DeeplayerError: the file cannot be read, is in no known format, or does not say how its boxes are written;
                or there is no folder ``options.images``.
        """
        if options.images is not None and not options.images.is_dir():
            raise DeeplayerError(f"{options.images} is no folder of images")
        form = recognise(path, options.form)
        first: Iterator[Example] = islice(form.read(path), _LOOKED_AT)
        if options.embedded is None:
            first = _refuse_embedded(first, path)
        box_format = agree_on_boxes(options.box_format, form.box_format, first, path)
        folder = options.images or (path if path.is_dir() else path.parent)
        finder = ImageFinder(folder, anywhere=options.images is None)
        return cls(path, form, GoldReader(box_format, options.size_of), options, finder)

    @property
    def name(self) -> str:
        """The name of the file in ids and messages."""
        return file_name(self.path)

    def rows(self) -> Iterator[tuple[Example, Request | BadRequest]]:
        """Yield each example of the file with its row.

        Raises:
            DeeplayerError: the file cannot be read, or an image that lies inside cannot be written.
        """
        placed: dict[str, Path] = {}
        for number, example in zip(count(1), self.form.read(self.path)):
            place = f"{self.name}:{example.line or number}"
            if isinstance(example, BadExample):
                yield example, _bad(place, example.error)
                continue
            try:
                path = self._place(example, placed)
            except RowError as error:
                yield example, _bad(place, error)
                continue
            reader = (
                GoldReader(example.box_format, self.options.size_of) if self._rows_say(example) else self.gold_reader
            )
            confined = self.options.confined and not isinstance(example.image, (bytes, EarlierImage))
            row = as_row(example, str(path.absolute()) if isinstance(path, Path) else path)
            yield (
                example,
                parse_request(row, place, place, self.finder.folder, confined=confined, hint=_HINT, gold_reader=reader),
            )

    def _rows_say(self, example: ImportedExample) -> bool:
        return example.box_format is not None and self.options.box_format is None

    def _place(self, example: ImportedExample, placed: dict[str, Path]) -> object:
        """The path of an example's image: where it was found or written; as the file has it if there is none."""
        image = example.image
        if isinstance(image, EarlierImage):
            if image.image_key not in placed:
                raise RowError("bad_image", f"its image is that of row {image.image_key!r}, which did not come before")
            return placed[image.image_key]
        if isinstance(image, bytes):
            folder = self.options.embedded
            assert folder is not None  # noqa: S101 - such files were refused before the first row
            path = write_image(image, folder, example.image_name or "image")
            if example.image_key is not None:
                placed[example.image_key] = path
            return path
        return (self.finder.find(image) or image) if isinstance(image, str) else image


def _refuse_embedded(examples: Iterable[Example], path: Path) -> Iterator[Example]:
    """Pass examples on, unless their images lie inside the file."""
    for example in examples:
        if not isinstance(example, BadExample) and isinstance(example.image, bytes):
            raise DeeplayerError(
                f"the images of {path} lie inside of it and are written beside the results: name the output file with "
                "-o, or the folder of compare with --results"
            )
        yield example


def as_row(example: ImportedExample, image: object) -> dict[str, object]:
    """An example as a row of requests, with the box as it is written."""
    meta = dict(example.meta)
    if isinstance(example.image, str | bytes):
        named = example.image if isinstance(example.image, str) else example.image_name or ""
        if "image_id" not in meta and (number := coco_image_id(named)) is not None:
            meta["image_id"] = number
    row = {"image": image, "expression": example.expression, "box": example.box, "meta": meta}
    if example.second_box is not None:
        row["bbox"] = example.second_box
    if example.id not in (None, ""):
        row["id"] = example.id
    if example.resolution_wh is not None:
        row["width"], row["height"] = example.resolution_wh
    return row


def _bad(place: str, error: RowError) -> BadRequest:
    return BadRequest(place, None, None, None, {}, place, RowError(error.kind, f"{place}: {error.message}"))


@dataclass
class ImportSummary:
    """What an import came to.

    Attributes:
        n_rows: requests that were written.
        n_boxes: how many of them have a gold box.
        formats: of the files, by title.
        warnings: what is odd about the whole, a sentence each.
        left_out: rows that are no requests, by kind of error: how many, and the first one's message.
    """

    n_rows: int = 0
    n_boxes: int = 0
    formats: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)

    def leave_out(self, row: BadRequest) -> None:
        """Count a row that is no request."""
        n_rows, first = self.left_out.get(row.error.kind, (0, row.error.message))
        self.left_out[row.error.kind] = n_rows + 1, first


def import_files(sources: Sequence[Path], output: Path, options: ImportOptions) -> ImportSummary:
    """Read files of any known format, and write their examples as requests, as a whole or not at all.

    Args:
        sources: files, read one after the other.
        output: a JSONL file.
        options: see there.

    Raises:
        DeeplayerError: a file is given twice, cannot be read, is in no known format, or does not say how its boxes are
            written; no row is a request; or the output cannot be written.
    """
    refuse_twice(sources)
    files = [FileImporter.from_path(path, options) for path in sources]
    counts, summary = SplitCounts(), ImportSummary(formats=list(dict.fromkeys(file.form.title for file in files)))
    with replacing(output) as partial, partial.open("wb") as stream:
        for file in files:
            for example, row in file.rows():
                if isinstance(row, BadRequest):
                    summary.leave_out(row)
                    continue
                counts.add(row.meta, row.image, row.gold)
                stream.write(orjson.dumps(_request(example, row), option=orjson.OPT_APPEND_NEWLINE))
                summary.n_rows += 1
                summary.n_boxes += row.gold is not None
        if not summary.n_rows:
            names = ", ".join(map(str, sources))
            if not summary.left_out:
                raise DeeplayerError(f"{names}: there are no rows to import")
            _, first = next(iter(summary.left_out.values()))
            raise DeeplayerError(f"{names}: no row is a request, such as: {first}")
    summary.warnings = [*counts.warnings(), *missing_images(files)]
    return summary


def _request(example: Example, row: Request) -> dict[str, object]:
    """A row as it is written: with its box in pixels, and without an id that only its place made."""
    written: dict[str, object] = {"id": row.id} if row.id != row.where else {}
    written |= {"image": row.image, "expression": row.expression}
    if row.gold is not None:
        written["box"] = [round(number, 2) for number in row.gold]
    if row.resolution_wh is not None:
        written["width"], written["height"] = row.resolution_wh
    clashing = {name: value for name, value in row.meta.items() if name in OWN_FIELDS}
    if clashing:
        written["meta"] = clashing
    return written | {name: value for name, value in row.meta.items() if name not in OWN_FIELDS}


def missing_images(files: Iterable[FileImporter]) -> list[str]:
    """A sentence for each folder in which images were not found."""
    return [
        f"{file.finder.folder}: {counted(len(file.finder.missing), 'image')} of "
        f"{counted(sum(file.finder.missing.values()), 'row')} not found, the first is {next(iter(file.finder.missing))}"
        for file in files
        if file.finder.missing
    ]


def _usable_size(resolution_wh: Resolution | None) -> Resolution | None:
    """The size that a file states, if it is one; a row with another is refused later."""
    return resolution_wh if resolution_wh and all(isinstance(side, int) for side in resolution_wh) else None


def agree_on_boxes(
    given: BoxFormat | None, fixed: BoxFormat | None, examples: Iterable[Example], path: Path
) -> BoxFormat:
    """The format of a file's boxes: what the user said, else what the file's format fixes, and never a guess.

    Args:
        given: by the user.
        fixed: by the format.
        examples: the first ones of the file.
        path: of the file, for messages.

    Raises:
        DeeplayerError: nobody says, or many boxes contradict what the format or the row says; the sentence names the
            option.
    """
    checks: dict[BoxFormat | None, BoxFormatCheck] = {}
    for example in examples:
        if isinstance(example, BadExample) or example.box is None:
            continue
        stated = example.box_format or fixed
        try:
            numbers = read_numbers(example.box)
        except RowError:  # becomes a bad row
            continue
        checks.setdefault(stated, BoxFormatCheck(stated or "xyxy")).add(numbers, _usable_size(example.resolution_wh))
    if given is not None:
        return given
    if None in checks:
        possible = " or ".join(checks[None].possible()) or "none of them"
        raise DeeplayerError(
            f"{path} does not say how its boxes are written: give --box-format; by the numbers they can be {possible}"
        )
    for check in checks.values():
        if doubt := check.doubt():
            raise DeeplayerError(f"{path}: {doubt}")
    return fixed or "xyxy"
