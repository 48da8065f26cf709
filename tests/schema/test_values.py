"""Counts have their noun in the singular or plural."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import deeplayer_cli
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(deeplayer_cli.__file__).parent
PLURAL = re.compile(
    r"(?: (?:other|selection|report|gold|error|image))?"
    r" (?:rows|images|expressions|questions|targets|requests|sizes|errors)\b(?!/)"
)
NEVER_ONE = {"MAX_LINES", "expected", "len(KNOWN_TILES)", "len(images)"}
"""Limits, standard sizes, and a number that is known not to be 1."""

OWN_LISTS = {"bench", "report/study.py", "report/cost_tables.py"}
"""What counts its own lists, or rows of a study that is done."""


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows"), (-1, "-1 rows")]
)
def test_a_count_has_its_noun(n: int, said: str) -> None:
    assert counted(n, "row") == said
    assert counted(1, "box", "boxes") == "1 box" and counted(2, "box", "boxes") == "2 boxes"


def bare_plurals(tree: ast.AST) -> Iterator[str]:
    """Every number in a text that a plural follows, whatever the number is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                follows = isinstance(text, ast.Constant) and PLURAL.match(str(text.value))
                if follows and isinstance(value, ast.FormattedValue) and ast.unparse(value.value) not in NEVER_ONE:
                    yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (node.value for found in re.finditer("%d", node.value) if PLURAL.match(node.value, found.end()))


def test_the_search_finds_them() -> None:
    code = 'f"{n} rows", f"about {len(x):,} other images", "%d rows", f"{counted(n, \'row\')}", f"{n} of the rows"'
    assert len(list(bare_plurals(ast.parse(code)))) == 3


def test_no_text_has_a_plural_for_every_number() -> None:
    names = {path: path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    checked = {path: name for path, name in names.items() if not {str(name), name.parts[0]} & OWN_LISTS}
    found = [(str(name), text) for path, name in checked.items() for text in bare_plurals(ast.parse(path.read_text()))]
    assert not found, "counted() writes a number with its noun"
