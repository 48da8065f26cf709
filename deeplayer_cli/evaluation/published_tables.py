"""Published accuracies, from small data files with their sources."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.resources import files
from statistics import fmean

import orjson

from deeplayer_cli.errors import DeeplayerError, not_one_of
from deeplayer_cli.evaluation.score import Rate
from deeplayer_cli.evaluation.splits import SplitLine, SplitTable

_FOLDER = files("deeplayer_cli.evaluation") / "published"


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        title: of the paper and the table.
        source: where the figures were read.
        note: what to know about them.
        table: the figures.
    """

    title: str
    source: str
    note: str
    table: SplitTable


def published_tables() -> list[str]:
    """The names of the published tables."""
    return sorted(one.name.removesuffix(".json") for one in _FOLDER.iterdir() if one.name.endswith(".json"))


def read_published(name: str) -> PublishedTable:
    """Read a published table.

    Raises:
        DeeplayerError: there is none of this name.
    """
    if name not in published_tables():
        raise DeeplayerError(not_one_of("--published", name, published_tables()))
    found = orjson.loads((_FOLDER / f"{name}.json").read_bytes())
    lines = tuple(
        SplitLine(
            line["method"],
            line["keep"],
            line["layer"],
            tuple(map(_exact, line["accuracies"])),
            _exact(line["average"]),
            published=True,
        )
        for line in found["lines"]
    )
    return PublishedTable(
        found["title"], found["source"], found["note"], SplitTable(tuple(found["splits"]), (), lines, None)
    )


def beside(ours: SplitTable, published: SplitTable) -> SplitTable:
    """Our table with the published lines below, whose splits are found by name.

    Upper case, spaces and punctuation (but not ``+``) make no difference between names. A published average is that of
    the splits in the table.

    Raises:
        DeeplayerError: no split has the name of a published one.
    """
    columns = {_plain(split): number for number, split in enumerate(published.splits)}
    places = [columns.get(_plain(split)) for split in ours.splits]
    if all(place is None for place in places):
        raise DeeplayerError(
            f"none of the splits {', '.join(ours.splits)} has published figures: they are for "
            f"{', '.join(published.splits)}; --by names the fields that splits are called after, such as dataset,split"
        )
    lines = []
    for line in published.lines:
        rates = tuple(None if place is None else line.accuracies[place] for place in places)
        average = line.average
        if len(ours.splits) < len(published.splits):
            average = _exact(fmean(rate.value for rate in rates if rate is not None))
        lines.append(replace(line, accuracies=rates, average=average))
    return replace(ours, lines=(*ours.lines, *lines))


def _plain(split: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", split.lower())


def _exact(value: float) -> Rate:
    return Rate(value, value, value)
