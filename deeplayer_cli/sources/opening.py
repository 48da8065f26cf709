"""From what is named on the command line to rows."""

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
    """Something that requests come from."""

    @property
    def repeatable(self) -> bool:
        """Whether it can be read more than once; a pipe cannot."""

    def rows(self) -> Iterator[Request | BadRequest]:
        """Stream the rows, in the source's order."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The rows of some sources, or of them a shard, or the first few.

    Attributes:
        sources: read one after the other.
        share: index and count: of every ``count`` rows the one at ``index``; all shards together are the whole.
        limit: the most rows to take, counted within the shard.
    """

    sources: Sequence[Source]
    share: tuple[int, int] = (0, 1)
    limit: int | None = None

    def __iter__(self) -> Iterator[Request | BadRequest]:
        """The rows, from the first on."""
        index, of = self.share
        every = chain.from_iterable(source.rows() for source in self.sources)
        # One behind the last row, so that nothing is waited for once that is there.
        stop = None if self.limit is None else min(sys.maxsize, index + (self.limit - 1) * of + 1)
        return islice(every, index, stop, of)

    @property
    def repeatable(self) -> bool:
        """Whether they can be read more than once."""
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
    """The rows of all sources, in the order given; reading them holds one row at a time.

    A source is a ``.jsonl`` file, ``-`` for stdin, an image, or a folder: its ``.jsonl`` files if it has any and no
    expressions are given, otherwise its images. All sources are looked at before the first row is read.

    Args:
        sources: paths, or ``-``.
        expressions: what to find in every image of a folder.
        image_root: the folder that relative image paths in JSON lines start from, instead of the file's own folder
            (for stdin: instead of the working directory).
        confined: an image that lies outside of ``image_root`` is a bad row; without ``image_root`` it means nothing.
        share: see ``Requests``.
        limit: see ``Requests``.

    Raises:
        DeeplayerError: a source is missing, unreadable, given twice or nothing to ask; the sentence says which.
    """
    confined = confined and image_root is not None
    return Requests(_resolve(sources, expressions, image_root, confined=confined), share, limit)


def parse_shard(argument: str) -> tuple[int, int]:
    """Read ``i/n``, shard i of n, as index and count.

    Raises:
        DeeplayerError: it is something else, or ``0 <= i < n`` does not hold.
    """
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", argument, re.ASCII)
    if numbers is None or int(numbers[1]) >= int(numbers[2]):
        raise DeeplayerError(f"a shard is i/n with 0 <= i < n, such as 0/4 for the first of four, not {argument!r}")
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
    """A source as the file or folder that is read: a folder of JSON lines becomes its files."""
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
        raise DeeplayerError(f"rows from {source} bring their own expressions: give expressions with images only")
    if path.is_file() and path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DeeplayerError(
            f"{source} is neither .jsonl nor an image; JSON lines under another name can come by stdin"
        )
    return [source]


def _holds_images(source: str) -> bool:
    return source != STDIN and (Path(source).is_dir() or Path(source).suffix.lower() in SUFFIXES)


def _check_images(source: str, expressions: Sequence[Expression]) -> None:
    """Refuse a folder without images, and images without anything to find in any of them."""
    images = Images(Path(source), expressions)
    if next(images.files(), None) is None:
        raise DeeplayerError(f"{source} holds neither .jsonl files nor images")
    if not expressions and not any(path.with_suffix(".txt").exists() for path in images.files()):
        raise DeeplayerError(
            f'nothing to find in {source}: give -e "the dog", or a .txt file beside each image, an expression a line'
        )


def _check_expressions(expressions: Sequence[Expression]) -> None:
    names = Counter(expression.label or str(number) for number, expression in enumerate(expressions, start=1))
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise DeeplayerError(f"two expressions are called {twice[0]!r}: their rows would have the same ids")
