"""Numbers as the text of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.evaluation import Rate, Report


def percent(share: float) -> str:
    """A share of 1 in percent, with one decimal."""
    return f"{share:.1%}"


def interval(rate: Rate) -> str:
    """The interval of a share, in percent."""
    return f"{100 * rate.low:.0f} to {100 * rate.high:.0f}"


def points(difference: float, decimals: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def all_groups(reports: Iterable[Report]) -> list[str]:
    """The names of the groups in any of the reports, sorted."""
    return sorted({name for report in reports for name in report.groups})


def colour_class(colour: str) -> str:
    """The class of elements in a colour ``#RRGGBB``; the style sheet has its values in light and in dark."""
    return f"colour-{colour.removeprefix('#').lower()}"
