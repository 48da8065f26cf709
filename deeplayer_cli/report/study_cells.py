"""How a study's tables write accuracies and differences, from the JSON values of `evaluation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def rate(line: Mapping[str, Any]) -> str:
    """The accuracy of a line of a comparison, with its interval."""
    low, high = line["acc@0.5_ci95"]
    return f"{line['acc@0.5']:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def points(change: Mapping[str, Any]) -> str:
    """A difference with its interval, in points."""
    return f"{100 * change['value']:+.1f} ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
