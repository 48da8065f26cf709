"""Which settings to compare: at equal keep, or each at the keep that makes it cost as much as the first."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

from deeplayer_cli import pruning
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import label_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deeplayer_cli.cost.model import Cost
    from deeplayer_cli.runtime.settings import Settings

Match = Literal["keep", "mean-keep", "flops"]

_MEASURES: dict[str, Callable[[Cost], float]] = {"mean-keep": lambda cost: cost.mean_keep, "flops": lambda c: c.gflops}
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A method that no keep makes as costly as the first one.

    Attributes:
        label: what it is called.
        match: which cost was to be equal.
        target: the first method's.
        low: the method's own with one visual token an image.
        high: and with all of them.
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
    """Whether their method drops anything, so that ``keep`` means something to it."""
    return pruning.known_methods()[settings.method].prunes


def label_of(settings: Settings) -> str:
    """What a line with these settings is called, see `label_for`."""
    return label_for(settings.method, layer=settings.layer, max_tiles=settings.max_tiles, query=settings.query)


def require_measure(wanted: Sequence[Settings], match: Match) -> None:
    """Make sure that the first of the wanted has the cost that others shall have.

    Raises:
        DeeplayerError: it prunes nothing and mean keeps are to be equal.
    """
    if match == "mean-keep" and not all(map(prunes, wanted[:1])):
        raise DeeplayerError(
            f"--match mean-keep takes its measure from the first of --methods, and {label_of(wanted[0])} prunes "
            "nothing: put a method that prunes first, or use --match flops"
        )


def at_equal_keep(wanted: Sequence[Settings], shares: Sequence[float]) -> list[Settings]:
    """Each of the wanted at each keep, once each."""
    return list(dict.fromkeys(_at(one, share) for one, share in product(wanted, shares)))


def at_equal_cost(
    wanted: Sequence[Settings],
    shares: Sequence[float],
    match: Match,
    cost: Callable[[Settings], Cost],
    largest: Callable[[Settings], int],
) -> list[Settings | Unreachable]:
    """The first of the wanted at each keep; the others at the keep at which they cost as much as it does there.

    That keep is the greatest whose cost is not above the first's, to one visual token of the largest image. What prunes
    nothing stays as it is.

    Args:
        wanted: methods, with all settings but ``keep``.
        shares: keeps of the first.
        match: what shall be equal; not ``keep``.
        cost: of some settings, on the rows of the comparison.
        largest: visual tokens of the largest image under some settings.

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
    """The greatest keep that costs at most ``target``; None if even the smallest costs more, or the greatest less.

    Args:
        measured: cost at a keep; it grows with it.
        n_visual: keeps are tried in steps of one of so many tokens.
        share: tried as well, so that a method that costs what the first does keeps what the first does.
        target: the cost.
    """
    keeps = sorted({share, *((n + 1) / n_visual for n in range(n_visual))})
    most = target * (1 + _ROUNDING)
    if measured(keeps[0]) > most or measured(keeps[-1]) < target * (1 - _ROUNDING):
        return None
    return keeps[bisect_right(keeps, most, key=measured) - 1]
