"""Open the sources that the command line names."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.images.decode import read_size
from deeplayer_cli.images.formats import OTHER_SUFFIXES, way_out
from deeplayer_cli.images.formats import SUFFIXES as IMAGE_SUFFIXES
from deeplayer_cli.schema import GoldReader, in_text
from deeplayer_cli.sinks.descriptors import is_descriptor
from deeplayer_cli.sources.box_format import refuse_doubtful
from deeplayer_cli.sources.expression_file import EXPRESSION_SUFFIX
from deeplayer_cli.sources.folder import Folder
from deeplayer_cli.sources.images import Expression, Images
from deeplayer_cli.sources.jsonl import SUFFIXES, JsonLines, Stdin
from deeplayer_cli.sources.shards import rows_of_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deeplayer_cli.schema import BadRequest, Request

STDIN = "-"

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip"})
_IN_PIXELS = GoldReader(size_of=read_size)

logger = logging.getLogger("deeplayer")


class Source(Protocol):
    """A source of requests."""

    @property
    def name(self) -> str:
        """Its name in ids and messages."""

    @property
    def repeatable(self) -> bool:
        """Whether it can be read more than once; a pipe cannot."""

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield the rows, in the source's order."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The rows of some sources: all of them, a shard, or the first rows.

    Attributes:
        sources: read one after the other.
        shard: (index, count), see `rows_of_shard`. All shards together have all rows.
        limit: the most rows to take, counted within the shard.
    """

    sources: Sequence[Source]
    shard: tuple[int, int] = (0, 1)
    limit: int | None = None

    def __iter__(self) -> Iterator[Request | BadRequest]:
        """Iterate over the rows, from the first on."""
        index, count = self.shard
        rows: Iterator[Request | BadRequest] = chain.from_iterable(source.rows() for source in self.sources)
        return islice(rows if count == 1 else rows_of_shard(rows, index, count), self.limit)

    @property
    def part(self) -> dict[str, object]:
        """The part of the sources that these rows are, as options name it; empty for all rows."""
        index, count = self.shard
        part: dict[str, object] = {} if self.limit is None else {"limit": self.limit}
        return part if count == 1 else part | {"shard": f"{index}/{count}"}

    @property
    def repeatable(self) -> bool:
        """Whether the rows can be read more than once."""
        return all(source.repeatable for source in self.sources)


def open_source(
    sources: Sequence[str],
    *,
    expressions: Sequence[Expression] = (),
    image_root: Path | None = None,
    confined: bool = True,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    gold_reader: GoldReader = _IN_PIXELS,
) -> Requests:
    """Open sources as the rows of all of them, in the order given; the rows are streamed.

    A source is a ``.jsonl`` or ``.ndjson`` file, ``-`` for stdin, an image, or a folder: its JSONL files if it has any
    and no expressions are given, otherwise its images. All sources are checked before the first row is read.

    Args:
        sources: paths, or ``-``.
        expressions: what to find in every image.
        image_root: the folder that relative image paths in JSON lines start from, instead of the file's own folder
            (for stdin: instead of the working directory).
        confined: an image outside of ``image_root`` is a bad row, also in a folder; without ``image_root``, this has no
            effect.
        shard: see ``Requests``.
        limit: see ``Requests``.
        gold_reader: reads the gold boxes of JSON lines.

    Raises:
        DeeplayerError: a source is missing, unreadable or without requests, two sources have the same name in ids, or
            the gold boxes of a file are not what ``gold_reader`` takes them for; the message names them.
    """
    confined = confined and image_root is not None
    return Requests(_resolve(sources, expressions, image_root, gold_reader, confined=confined), shard, limit)


def parse_shard(argument: str) -> tuple[int, int]:
    """Read ``i/n``, shard i of n, as (index, count).

    Raises:
        DeeplayerError: the argument is not ``i/n`` with ``0 <= i < n``.
    """
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", argument, re.ASCII)
    if numbers is None or int(numbers[1]) >= int(numbers[2]):
        raise DeeplayerError(
            f"--shard must be i/n with 0 <= i < n, such as 0/4 for the first of four, not {argument!r}"
        )
    return int(numbers[1]), int(numbers[2])


def _resolve(
    sources: Sequence[str],
    expressions: Sequence[Expression],
    image_root: Path | None,
    gold_reader: GoldReader,
    *,
    confined: bool,
) -> list[Source]:
    _check_expressions(expressions)
    if "" in sources:  # an unset variable of a script; as a path it would mean the working directory
        raise DeeplayerError("a source is empty: name a file, a folder or - for stdin")
    paths: list[str] = []
    for source in sources:
        with reading(in_text(source)):
            paths += _expand(source, expressions, image_root if confined else None)

    def make(source: str) -> Source:
        if source == STDIN:
            return Stdin(image_root, confined, gold_reader)
        if _holds_images(source):
            return Images(Path(source), expressions, image_root if confined else None)
        return JsonLines(Path(source), image_root, confined, gold_reader)

    made = [make(source) for source in paths]
    _refuse_equal_names(paths, made)
    for one in made:
        if isinstance(one, Images):
            _check_images(one)
        elif one.repeatable and gold_reader.box_format is None:
            refuse_doubtful(one.rows(), one.name, gold_reader.size_of)
    return made


def _expand(source: str, expressions: Sequence[Expression], inside: Path | None) -> list[str]:
    """Return the files or folders of a source that are read: a folder of JSON lines becomes its files.

    Links in the folder must lead into it, or into ``inside``; None for no limit.
    """
    path = Path(source)
    if source != STDIN and not path.exists():
        raise DeeplayerError(f"{source} does not exist: give a .jsonl file, an image, a folder, or - for stdin")
    if _holds_images(source):
        of_rows = [] if expressions or not path.is_dir() else _files_of_rows(path, inside)
        return [str(file) for file in of_rows] or [source]
    if expressions:
        raise DeeplayerError(f"the rows of {source} have their own expressions: give -e with images only")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise DeeplayerError(f"{source} is an image in a format that is not read: {way_out(path.suffix.lower())}")
    if path.is_file() and path.suffix.lower() in _COMPRESSED:
        raise DeeplayerError(f"{source} is compressed: unpack it first")
    if path.is_file() and path.suffix.lower() not in SUFFIXES and not is_descriptor(path):
        raise DeeplayerError(
            f"{source} is neither .jsonl nor an image: give --from-format auto for a table or another tool's file, or "
            "rename JSON lines to .jsonl"
        )
    return [source]


def _files_of_rows(folder: Path, inside: Path | None) -> list[Path]:
    """Return the JSONL files in a folder, without hidden ones, sorted."""
    found = (file for file in folder.iterdir() if not file.name.startswith(".") and file.suffix.lower() in SUFFIXES)
    files = sorted(file for file in found if file.is_file())
    allowed = [os.path.realpath(one) for one in (folder, inside) if one is not None]
    for file in files if inside is not None else ():
        if not any(Path(os.path.realpath(file)).is_relative_to(root) for root in allowed):
            raise DeeplayerError(f"{file} is a link that leaves --image-root {inside}: name the file it points to")
    return files


def _holds_images(source: str) -> bool:
    return source != STDIN and (Path(source).is_dir() or Path(source).suffix.lower() in IMAGE_SUFFIXES)


def _refuse_equal_names(paths: Sequence[str], sources: Sequence[Source]) -> None:
    first: dict[str, str] = {}
    for path, source in zip(paths, sources, strict=True):
        if source.name in first:
            raise DeeplayerError(
                f"{first[source.name]} and {path} are both called {source.name} in ids: leave one out, or rename its "
                "folder"
            )
        first[source.name] = path


def _check_images(images: Images) -> None:
    """Say what is skipped; refuse a folder without images, and images of which none has an expression."""
    files: Iterable[Path] = Folder(images.root, images.inside) if images.root.is_dir() else [images.root]
    n_images = n_with_text = 0
    for path in files:
        n_images += 1
        n_with_text += path.with_suffix(EXPRESSION_SUFFIX).exists()
    skipped = files.skipped() if isinstance(files, Folder) else []
    if not n_images:
        raise DeeplayerError("; ".join([f"{images.root} contains neither .jsonl files nor images", *skipped]))
    if not images.expressions and not n_with_text:
        raise DeeplayerError(
            f'no expressions for {images.root}: give -e "the dog", or a .txt beside each image with one expression per '
            "line"
        )
    for sentence in skipped:
        logger.warning(sentence)


def _check_expressions(expressions: Sequence[Expression]) -> None:
    names = Counter(expression.label or str(number) for number, expression in enumerate(expressions, start=1))
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise DeeplayerError(
            f"two expressions are called {twice[0]!r}: give them different labels, so that ids are unique"
        )
