"""Chooses the settings of a comparison: all methods at equal keep, or each at the keep that gives equal cost."""

from __future__ import annotations

import logging
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from deeplayer_cli import pruning
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import LABELLED, label_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deeplayer_cli.cost.model import Cost
    from deeplayer_cli.runtime.settings import Settings

logger = logging.getLogger("deeplayer")

Match = Literal["keep", "mean-keep", "flops"]

_MEASURES: dict[str, Callable[[Cost], float]] = {"mean-keep": lambda cost: cost.mean_keep, "flops": lambda c: c.gflops}
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A method that cannot reach the cost of the first method at any keep.

    Attributes:
        label: name of the line.
        match: the cost that should be equal.
        target: the cost of the first method: GFLOPs per row, or mean keep.
        low: the cost of this method with one visual token per image.
        high: the cost of this method with all visual tokens.
    """

    label: str
    match: Match
    target: float
    low: float
    high: float

    def to_dict(self) -> dict[str, object]:
        """The line as JSON values."""
        return {
            "method": self.label,
            "unreachable": {"match": self.match, "target": self.target, "reach": [self.low, self.high]},
        }


def prunes(settings: Settings) -> bool:
    """Whether the method of the settings drops tokens. If not, ``keep`` has no effect."""
    return pruning.find_method(settings.method)[0].prunes


def label_of(settings: Settings) -> str:
    """The name of the line with these settings, see `label_for`."""
    return label_for(settings.method, **{name: getattr(settings, name) for name in LABELLED})


def require_measure(wanted: Sequence[Settings], match: Match) -> None:
    """Check that the first of the ``wanted`` settings can set the cost of the others.

    Raises:
        DeeplayerError: mean keeps should be equal, but the first method prunes nothing.
    """
    if match == "mean-keep" and not all(map(prunes, wanted[:1])):
        raise DeeplayerError(
            f"--match mean-keep needs a method that prunes as the first of --methods, but {label_of(wanted[0])} prunes "
            "nothing: put another method first, or use --match flops"
        )


def warn_of_scouts(wanted: Sequence[Settings], match: Match) -> None:
    """Warn of methods that look cheaper than they are if mean keeps are made equal: a mean keep counts no scout."""
    scouting = [one for one in wanted if pruning.find_method(one.method)[0].scouts]
    if match == "mean-keep" and scouting and len(wanted) > 1:
        logger.warning(
            "--match mean-keep leaves out what the scout of %s costs, which favours it: --match flops counts it",
            " and ".join(dict.fromkeys(map(label_of, scouting))),
        )


def at_equal_keep(
    wanted: Sequence[Settings], shares: Sequence[float], adaptive: Sequence[Mapping[str, Any]] = ()
) -> list[Settings]:
    """All ``wanted`` settings at all keeps, without duplicates; without keeps, each at its own.

    Args:
        wanted: the settings.
        shares: values of ``keep``.
        adaptive: fields of the settings for each budget that is a share of the attention, ``keep_mass`` among them.
    """
    if not shares and not adaptive:
        return list(dict.fromkeys(wanted))
    found = [_at(one, share) for one, share in product(wanted, shares)]
    found += [replace(one, **budget) if prunes(one) else one for one, budget in product(wanted, adaptive)]
    return list(dict.fromkeys(found))


def at_equal_cost(
    wanted: Sequence[Settings],
    shares: Sequence[float],
    match: Match,
    cost: Callable[[Settings], Cost],
    largest: Callable[[Settings], int],
) -> list[Settings | Unreachable]:
    """The first of the ``wanted`` settings at each keep, and the others at keeps of equal cost.

    Each other method gets the largest keep whose cost is not above the cost of the first method, in steps of one visual
    token of the largest image. A method that prunes nothing runs once, without a keep.

    Args:
        wanted: the settings without ``keep``.
        shares: the keeps of the first method.
        match: the cost that should be equal; not ``keep``.
        cost: computes the cost of settings on the rows of the comparison.
        largest: computes the number of visual tokens of the largest image under settings.

    Raises:
        DeeplayerError: see `require_measure`.
    """
    require_measure(wanted, match)
    measure = _MEASURES[match]
    found: list[Settings | Unreachable] = []
    for one, share in product(wanted, shares):
        if one is wanted[0] or not prunes(one):
            found.append(_at(one, share))
            continue

        def measured(keep: float, one: Settings = one) -> float:
            return measure(cost(replace(one, keep=keep)))

        target, n_visual = measure(cost(_at(wanted[0], share))), largest(one)
        keep = _solve(measured, n_visual, share, target)
        if keep is None:
            low, high = measured(1 / n_visual), measured(1.0)
            found.append(Unreachable(label_of(one), match, target, low, high))
        else:
            found.append(replace(one, keep=keep))
    return list(dict.fromkeys(found))


def _at(settings: Settings, keep: float) -> Settings:
    return replace(settings, keep=keep) if prunes(settings) else settings


def _solve(measured: Callable[[float], float], n_visual: int, share: float, target: float) -> float | None:
    """The largest keep that costs at most ``target``; None if all keeps cost more, or all cost less.

    Args:
        measured: cost at a keep; it grows with the keep.
        n_visual: keeps are multiples of ``1 / n_visual``.
        share: one more keep to try, so that a method of the same cost gets the same keep as the first method.
        target: the cost to reach.
    """
    keeps = sorted({share, *((n + 1) / n_visual for n in range(n_visual))})
    most = target * (1 + _ROUNDING)
    if measured(keeps[0]) > most or measured(keeps[-1]) < target * (1 - _ROUNDING):
        return None
    return keeps[bisect_right(keeps, most, key=measured) - 1]
