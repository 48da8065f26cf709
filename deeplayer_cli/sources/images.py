"""Requests from image files: every image gets the same expressions, or those in the text file beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.schema import BadRequest, Request, check_inside, in_text
from deeplayer_cli.sources.expression_file import EXPRESSION_SUFFIX, read_expressions
from deeplayer_cli.sources.files import name_in
from deeplayer_cli.sources.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LABELLED = re.compile("([\\w.\udc80-\udcff-][\\w. \udc80-\udcff-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expression:
    """What to find in every image, and the label of its class, if it has one."""

    text: str
    label: str | None = None


def parse_expression(argument: str) -> Expression:
    r"""Read ``the dog`` or ``label=the dog``; a label is letters, digits, spaces, ``_``, ``-`` and ``.``.

    Spaces around ``=`` are left out. Bytes of the text that are not UTF-8 become ``\x..``.

    Raises:
        DeeplayerError: the text is empty, or the label is not UTF-8.
    """
    labelled = _LABELLED.fullmatch(argument)
    label, text = (labelled[1].strip(), labelled[2].strip()) if labelled else (None, argument)
    if label is not None and label != in_text(label):
        raise DeeplayerError(f"-e {in_text(argument)!r}: the label is not UTF-8 and cannot be written: use another")
    if not text.strip():
        raise DeeplayerError(f"-e {argument!r} names nothing to find: give a description, such as -e 'the dog'")
    return Expression(in_text(text), label)


def parse_expressions(arguments: Iterable[str]) -> list[Expression]:
    """Read the arguments of ``-e``: `parse_expression` reads each, and each line of the file in ``@FILE``.

    Raises:
        DeeplayerError: see `parse_expression`; or a file cannot be read or holds no expressions.
    """
    found = []
    for argument in arguments:
        if not argument.startswith("@"):
            found.append(parse_expression(argument))
            continue
        try:
            lines = read_expressions(Path(argument[1:]))
        except RowError as error:
            raise DeeplayerError(f"-e {in_text(argument)}: {error.message}") from error
        found += map(parse_expression, lines)
    return found


@dataclass(frozen=True, slots=True)
class Images:
    """An image, or all images of a folder and its subfolders, sorted.

    Attributes:
        root: the image or the folder.
        expressions: the expressions of every image; if empty, ``photo.jpg`` gets the lines of ``photo.txt``.
        inside: the folder that images and text files must lie in, with links followed; None for no limit.
    """

    root: Path
    expressions: Sequence[Expression] = ()
    inside: Path | None = None

    @property
    def name(self) -> str:
        """The name in ids: of the folder, or of the image with its folder."""
        return name_in(self.root, "") if self.root.is_dir() else name_in(self.root.parent, self.root.name)

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield one row for each image and expression; an image without any expression is one bad row."""
        for path in self.files():
            yield from self._rows_of(path)

    @property
    def repeatable(self) -> bool:
        """Always true: image files can be read again."""
        return True

    def files(self) -> Iterator[Path]:
        """Yield the paths of the images; see `Folder`."""
        return iter(Folder(self.root, self.inside)) if self.root.is_dir() else iter([self.root])

    def _rows_of(self, path: Path) -> Iterator[Request | BadRequest]:
        base = self.root if self.root.is_dir() else self.root.parent
        name = name_in(base, path.relative_to(base))
        try:
            expressions = self.expressions or self._read_expressions(path)
        except RowError as error:
            yield _bad_row(name, name, error)
            return
        for number, expression in enumerate(expressions, start=1):
            row_id = f"{name}#{expression.label or number}"
            meta: dict[str, object] = {} if expression.label is None else {"label": expression.label}
            try:
                if self.inside is not None:
                    check_inside(path, self.inside)
            except RowError as error:
                yield _bad_row(row_id, name, error, expression.text, meta)
            else:
                yield Request(row_id, name, path, expression.text, None, meta, row_id, None)

    def _read_expressions(self, path: Path) -> list[Expression]:
        """Read the expressions in the text file beside an image; both must lie inside."""
        beside = path.with_suffix(EXPRESSION_SUFFIX)
        if self.inside is not None:
            check_inside(path, self.inside)
            check_inside(beside, self.inside)
        return [Expression(line) for line in read_expressions(beside)]


def _bad_row(
    row_id: str, image: str, error: RowError, expression: str | None = None, meta: dict[str, object] | None = None
) -> BadRequest:
    placed = RowError(error.kind, f"{row_id}: {error.message}")
    return BadRequest(row_id, image, expression, None, meta or {}, row_id, placed)
