"""Requests from image files: every image gets the same expressions, or those in the text file beside it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.decode import SUFFIXES
from deeplayer_cli.schema import BadRequest, Request, parse_request
from deeplayer_cli.sources.files import in_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LABELLED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expression:
    """What to find in every image, and the label of its class, if it has one."""

    text: str
    label: str | None = None


def parse_expression(argument: str) -> Expression:
    """Read ``the dog`` or ``label=the dog``; a label is letters, digits, ``_``, ``-`` and ``.``.

    Raises:
        DeeplayerError: the text is empty.
    """
    labelled = _LABELLED.fullmatch(argument)
    expression = Expression(labelled[2], labelled[1]) if labelled else Expression(argument)
    if not expression.text.strip():
        raise DeeplayerError(f"-e {argument!r} names nothing to find: give a description, such as -e 'the dog'")
    return expression


@dataclass(frozen=True, slots=True)
class Images:
    """An image, or all images of a folder and its subfolders, sorted.

    Attributes:
        root: the image or the folder.
        expressions: the expressions of every image; if empty, ``photo.jpg`` gets the lines of ``photo.txt``.
        prefix: the text before an image's relative path in ids and messages.
    """

    root: Path
    expressions: Sequence[Expression]
    prefix: str = ""

    def rows(self) -> Iterator[Request | BadRequest]:
        """Yield one row for each image and expression; an image without any expression is one bad row."""
        for path in self.files():
            yield from self._rows_of(path)

    @property
    def repeatable(self) -> bool:
        """Always true: image files can be read again."""
        return True

    def files(self) -> Iterator[Path]:
        """Yield the paths of the images, without hidden files and folders; links to folders are not followed."""
        if not self.root.is_dir():
            yield self.root
            return
        for folder, folders, names in os.walk(self.root, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
            yield from (path for path in paths if path.suffix.lower() in SUFFIXES)

    def _rows_of(self, path: Path) -> Iterator[Request | BadRequest]:
        base = self.root if self.root.is_dir() else self.root.parent
        image = path.relative_to(base).as_posix()
        name = self.prefix + in_text(image)
        try:
            expressions = self.expressions or _read_expressions(path.with_suffix(".txt"))
        except RowError as error:
            yield BadRequest(name, in_text(image), None, None, {}, name, error)
            return
        for number, expression in enumerate(expressions, start=1):
            row_id = f"{name}#{expression.label or number}"
            row: dict[str, object] = {"image": image, "expression": expression.text}
            if expression.label is not None:
                row["label"] = expression.label
            yield parse_request(row, row_id, row_id, base)


def _read_expressions(path: Path) -> list[Expression]:
    """Read the expressions in the text file beside an image, one per line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise RowError("no_expression", f"the image has no expressions: {in_text(path)} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RowError("no_expression", f"{in_text(path)} cannot be read: {error}") from error
    expressions = [Expression(line.strip()) for line in lines if line.strip()]
    if not expressions:
        raise RowError("no_expression", f"the image has no expressions: {in_text(path)} is empty")
    return expressions


def _refuse(error: OSError) -> None:
    """Raise for a subfolder that cannot be listed; ``os.walk`` would skip it silently."""
    raise DeeplayerError(f"{in_text(error.filename)} cannot be read: {error.strerror}") from error
