"""Finds what is wrong with the declaration of a method: what would stop a run, or be ignored without a word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.entry import Drop, Entry, PositionIds
from deeplayer_cli.pruning.method import ScoreFrom, Scorer
from deeplayer_cli.pruning.parameter import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAYERS = 32  # of_32 and freeze_of_32 count layers of a model of this depth


def fault_in(entry: Entry) -> str | None:
    """The first fault of a declaration, as the rest of a sentence about it; None if it has none."""
    return next(_faults(entry), None)


def _faults(entry: Entry) -> Iterator[str]:
    if not isinstance(entry.summary, str) or not isinstance(entry.source, str):
        yield "its summary and source must be text"
    if entry.drops and entry.scorer is not None:
        yield "it gives both a scorer and drops: each drop has a scorer of its own, so leave out the other one"
    if entry.scorer is None and (entry.layer is not None or entry.selector is not Entry.selector):
        yield "it gives a selector or a layer, but no scorer: give one, or leave them to its drops"
    if not isinstance(entry.drops, tuple) or not all(isinstance(drop, Drop) for drop in entry.drops):
        yield "its drops must be a tuple of Drop(...)"
    for drop in entry.all_drops:
        yield from _faults_of_drop(drop)
    if entry.all_drops and not _ends_at_keep(entry.all_drops[-1]):
        yield "its last drop has a power, a share or a schedule of its own, but a method must end at --keep"
    if entry.positions is not None and entry.positions not in get_args(PositionIds):
        yield f"positions must be {' or '.join(get_args(PositionIds))}, or None, not {entry.positions!r}"
    if not _is_share(entry.keep):
        yield f"keep must be a share above 0 and at most 1, not {entry.keep!r}"
    if entry.freeze_of_32 is not None and not _is_layer(entry.freeze_of_32, _LAYERS):
        yield f"freeze_of_32 must be a layer from 0 to {_LAYERS}, not {entry.freeze_of_32!r}"
    yield from _faults_of_parameters(entry)


def _faults_of_drop(drop: Drop) -> Iterator[str]:
    if isinstance(drop.scorer, Scorer) or not callable(drop.scorer):
        yield "its scorer must be a function that makes it from the options, such as lambda options: MyScorer()"
    if not callable(drop.selector):
        yield "its selector must be a Selector, or a function that makes one from the options"
    if drop.layer is not None and drop.of_32 is not None:
        yield f"a drop comes after layer={drop.layer!r} or of_32={drop.of_32!r}: give one of the two"
    if drop.layer is not None and not _is_layer(drop.layer, math.inf):
        yield f"layer must be a whole number, 0 or more, not {drop.layer!r}"
    if drop.of_32 is not None and not _is_layer(drop.of_32, _LAYERS):
        yield f"of_32 must be a layer from 0 to {_LAYERS}, not {drop.of_32!r}"
    if drop.score_from not in get_args(ScoreFrom):
        yield f"score_from must be {' or '.join(get_args(ScoreFrom))}, not {drop.score_from!r}"
    if not _is_number(drop.power) or drop.power < 0:
        yield f"power must be a number, 0 or more, not {drop.power!r}"
    if drop.share is not None and not _is_share(drop.share):
        yield f"the share of a drop must be above 0 and at most 1, not {drop.share!r}"
    keeps = [keep for keep, _ in drop.schedule]
    if not all(_is_share(number) for point in drop.schedule for number in point) or keeps != sorted(set(keeps)):
        yield "a schedule must hold points (keep, share), shares above 0 and at most 1, by rising keep"


def _ends_at_keep(drop: Drop) -> bool:
    if drop.share is not None:
        return False
    return all(keep == share for keep, share in drop.schedule) if drop.schedule else drop.power == 1.0


def _faults_of_parameters(entry: Entry) -> Iterator[str]:
    for name, parameter in entry.parameters.items():
        if not isinstance(parameter, Parameter):
            yield f"its parameter {name} must be a Parameter(...)"
            continue
        try:
            parameter.read(str(parameter.default))
        except DeeplayerError as error:
            yield f"the default of its parameter {name} {error}"


def _is_layer(number: object, most: float) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= most


def _is_number(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _is_share(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0.0 < number <= 1.0
