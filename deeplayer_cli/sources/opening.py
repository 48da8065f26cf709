"""Open the sources that the command line names."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.images.decode import SUFFIXES
from deeplayer_cli.sources.files import in_text
from deeplayer_cli.sources.images import Expression, Images
from deeplayer_cli.sources.jsonl import JsonLines, Stdin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deeplayer_cli.schema import BadRequest, Request

STDIN = "-"


class Source(Protocol):
    """A source of requests."""

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
        share: the shard (index, count): of every ``count`` rows, the one at ``index``. All shards together have all
            rows.
        limit: the most rows to take, counted within the shard.
    """

    sources: Sequence[Source]
    share: tuple[int, int] = (0, 1)
    limit: int | None = None

    def __iter__(self) -> Iterator[Request | BadRequest]:
        """Iterate over the rows, from the first on."""
        index, of = self.share
        every = chain.from_iterable(source.rows() for source in self.sources)
        # One behind the last row, so that a pipe is not read after that row.
        stop = None if self.limit is None else min(sys.maxsize, index + (self.limit - 1) * of + 1)
        return islice(every, index, stop, of)

    @property
    def part(self) -> dict[str, object]:
        """The part of the sources that these rows are, as options name it; empty for all rows."""
        index, of = self.share
        part: dict[str, object] = {} if self.limit is None else {"limit": self.limit}
        return part if of == 1 else part | {"shard": f"{index}/{of}"}

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
    share: tuple[int, int] = (0, 1),
    limit: int | None = None,
) -> Requests:
    """Open sources as the rows of all of them, in the order given; the rows are streamed.

    A source is a ``.jsonl`` file, ``-`` for stdin, an image, or a folder: its ``.jsonl`` files if it has any and no
    expressions are given, otherwise its images. All sources are checked before the first row is read.

    Args:
        sources: paths, or ``-``.
        expressions: what to find in every image.
        image_root: the folder that relative image paths in JSON lines start from, instead of the file's own folder
            (for stdin: instead of the working directory).
        confined: an image outside of ``image_root`` is a bad row; without ``image_root``, this has no effect.
        share: see ``Requests``.
        limit: see ``Requests``.

    Raises:
        DeeplayerError: a source is missing, unreadable, given twice or without requests; the message names it.
    """
    confined = confined and image_root is not None
    return Requests(_resolve(sources, expressions, image_root, confined=confined), share, limit)


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
    sources: Sequence[str], expressions: Sequence[Expression], image_root: Path | None, *, confined: bool
) -> list[Source]:
    _check_expressions(expressions)
    if "" in sources:  # an unset variable of a script; as a path it would mean the working directory
        raise DeeplayerError("a source is empty: name a file, a folder or - for stdin")
    paths: list[str] = []
    for source in sources:
        with reading(source):
            paths += _expand(source, expressions)
    twice = [source for source, times in Counter(paths).items() if times > 1]
    if twice:
        raise DeeplayerError(f"{twice[0]} is given twice: its rows would have the same ids")
    base_names = Counter(Path(source).name for source in paths)
    n_images = sum(_holds_images(source) for source in paths)

    def make(source: str) -> Source:
        if source == STDIN:
            return Stdin(image_root or Path(), confined)
        path = Path(source)
        if _holds_images(source):
            folder = path if path.is_dir() else path.parent
            return Images(path, expressions, prefix="" if n_images == 1 else f"{in_text(folder)}/")
        name = path.name if base_names[path.name] == 1 else source
        return JsonLines(path, in_text(name), image_root or path.parent, confined)

    return [make(source) for source in paths]


def _expand(source: str, expressions: Sequence[Expression]) -> list[str]:
    """Return the files or folders of a source that are read: a folder of JSON lines becomes its files."""
    path = Path(source)
    if source != STDIN and not path.exists():
        raise DeeplayerError(f"{source} does not exist: give a .jsonl file, an image, a folder, or - for stdin")
    if _holds_images(source):
        files = (
            []
            if expressions or not path.is_dir()
            else sorted(file for file in path.glob("[!.]*.jsonl") if file.is_file())
        )
        if not files:
            _check_images(source, expressions)
        return [str(file) for file in files] or [source]
    if expressions:
        raise DeeplayerError(f"the rows of {source} have their own expressions: give -e with images only")
    if path.is_file() and path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DeeplayerError(
            f"{source} is neither .jsonl nor an image: rename it to .jsonl, or give its JSON lines on stdin"
        )
    return [source]


def _holds_images(source: str) -> bool:
    return source != STDIN and (Path(source).is_dir() or Path(source).suffix.lower() in SUFFIXES)


def _check_images(source: str, expressions: Sequence[Expression]) -> None:
    """Refuse a folder without images, and images of which none has an expression."""
    images = Images(Path(source), expressions)
    if next(images.files(), None) is None:
        raise DeeplayerError(f"{source} contains neither .jsonl files nor images")
    if not expressions and not any(path.with_suffix(".txt").exists() for path in images.files()):
        raise DeeplayerError(
            f'no expressions for {source}: give -e "the dog", or a .txt beside each image with one expression per line'
        )


def _check_expressions(expressions: Sequence[Expression]) -> None:
    names = Counter(expression.label or str(number) for number, expression in enumerate(expressions, start=1))
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise DeeplayerError(
            f"two expressions are called {twice[0]!r}: give them different labels, so that ids are unique"
        )
