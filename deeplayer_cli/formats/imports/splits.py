"""What the RefCOCO splits must count, so that a wrong split is noticed."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

EXPRESSIONS: Mapping[tuple[str, str], int] = MappingProxyType(
    {
        ("refcoco", "val"): 10_834,
        ("refcoco", "testA"): 5_657,
        ("refcoco", "testB"): 5_095,
        ("refcoco+", "val"): 10_758,
        ("refcoco+", "testA"): 5_726,
        ("refcoco+", "testB"): 4_889,
        ("refcocog", "val"): 4_896,
        ("refcocog", "test"): 9_602,
    }
)
"""Expressions of the eight standard splits: UNC for RefCOCO and RefCOCO+, UMD for RefCOCOg."""

MIXED_OBJECTS: Mapping[tuple[str, str], int] = MappingProxyType({("refcoco", "val"): 8_811, ("refcocog", "val"): 7_573})
"""Objects of published files whose ``val`` adds a Google split of 5,000 objects to the standard one."""


def name_dataset(text: str) -> str | None:
    """``refcoco``, ``refcoco+`` or ``refcocog``, if a name says so."""
    low = text.lower().replace("_", "").replace("-", "")
    for name, spellings in (("refcoco+", ("refcoco+", "refcocoplus")), ("refcocog", ("refcocog",))):
        if any(spelling in low for spelling in spellings):
            return name
    return "refcoco" if "refcoco" in low else None


def name_split(text: str) -> str | None:
    """``val``, ``test``, ``testA``, ``testB`` or ``train``, if a name says so."""
    low = text.lower()
    for name, spellings in (
        ("testA", ("testa", "test-a", "test_a")),
        ("testB", ("testb", "test-b", "test_b")),
        ("val", ("val",)),
        ("test", ("test",)),
        ("train", ("train",)),
    ):
        if any(spelling in low for spelling in spellings):
            return name
    return None


def check_splits(expressions: Counter[tuple[str, str]], objects: Counter[tuple[str, str]]) -> list[str]:
    """A sentence for each split whose count is not that of the standard one.

    Args:
        expressions: how many there are, by dataset and split.
        objects: how many different objects they describe.
    """
    said = []
    for split, count in expressions.items():
        expected = EXPRESSIONS.get(split)
        if expected is None or count == expected:
            continue
        name = " ".join(split)
        if objects[split] == MIXED_OBJECTS.get(split):
            said.append(
                f"{name} has {objects[split]:,} objects: this file mixes the standard split with a Google split, and "
                f"scores on it do not compare with published ones ({expected:,} expressions)"
            )
        else:
            said.append(f"{name} has {count:,} expressions, and the standard split has {expected:,}")
    return said
