"""What the RefCOCO splits must count, so that a wrong split is noticed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
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


_OBJECT_IDS = ("ref_id", "ann_id", "question_id")
"""The fields of ``meta`` that tell the objects of a split apart, the best first."""

_SPLIT = re.compile(
    r"(?<![a-z])(train|val(?:idation)?|test(?:[\s_-]?(?=[ab](?![a-z])))?)([ab])?(?![a-z])", re.IGNORECASE
)


def name_dataset(text: str) -> str | None:
    """``refcoco``, ``refcoco+`` or ``refcocog``, if a name says so."""
    low = text.lower().replace("_", "").replace("-", "")
    for name, spellings in (("refcoco+", ("refcoco+", "refcocoplus")), ("refcocog", ("refcocog",))):
        if any(spelling in low for spelling in spellings):
            return name
    return "refcoco" if "refcoco" in low else None


def name_split(text: str) -> str | None:
    """``val``, ``test``, ``testA``, ``testB`` or ``train``, if a name says so in a word of its own."""
    found = _SPLIT.search(text)
    if found is None:
        return None
    word = next(word for word in ("train", "val", "test") if found[1].lower().startswith(word))
    return word + (found[2] or "").upper()


def names_in(text: str) -> dict[str, object]:
    """``dataset`` and ``split`` of a name that names one of the RefCOCO datasets; empty otherwise."""
    dataset, split = name_dataset(text), name_split(text)
    if dataset is None:
        return {}
    return {"dataset": dataset} if split is None else {"dataset": dataset, "split": split}


@dataclass
class SplitCounts:
    """Counts the expressions of each split, and the objects that they describe.

    Attributes:
        expressions: by dataset and split.
    """

    expressions: Counter[tuple[str, str]] = field(default_factory=Counter)
    _objects: dict[tuple[str, str], set[int]] = field(default_factory=dict, repr=False)

    def add(self, meta: Mapping[str, object], image: str | None, box: object) -> None:
        """Count a row by the ``dataset`` and ``split`` of its ``meta``; rows without them do not count."""
        dataset, split = meta.get("dataset"), meta.get("split")
        if isinstance(dataset, str) and isinstance(split, str):
            self.expressions[dataset, split] += 1
            thing = next((meta[name] for name in _OBJECT_IDS if name in meta), (image, str(box)))
            self._objects.setdefault((dataset, split), set()).add(hash(str(thing)))

    def warnings(self) -> list[str]:
        """A sentence for each split whose count is not the standard one; see `check_splits`."""
        return check_splits(self.expressions, Counter({split: len(found) for split, found in self._objects.items()}))


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
            said.append(f"{name} has {counted(count, 'expression')}, and the standard split has {expected:,}")
    return said
