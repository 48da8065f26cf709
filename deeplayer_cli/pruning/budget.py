"""How many visual tokens a method keeps: its budget, and the share of it that each stage keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deeplayer_cli.errors import DeeplayerError

Schedule = tuple[tuple[float, float], ...]
"""Points (budget, share that a stage keeps under it), by rising budget; all are shares of the visual tokens."""


@dataclass(frozen=True)
class Budget:
    """The number of visual tokens that a method keeps at its end, over all tiles and the thumbnail together.

    Attributes:
        share: share of the visual tokens, 0 < share <= 1; used if ``tokens`` is None.
        tokens: an absolute number; an image with fewer tokens keeps all.
        mass: the kept tokens hold at least this share of the scores of all visual tokens, so their number depends on
            the content; it replaces ``share``.
        least: with ``mass``, the smallest share of the visual tokens to keep.
        most: with ``mass``, the largest.

    Raises:
        DeeplayerError: ``share``, ``tokens``, ``mass`` or its bounds are out of range.
    """

    share: float = 1.0
    tokens: int | None = None
    mass: float | None = None
    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and 0.0 < self.share <= 1.0):
            raise DeeplayerError(f"--keep must be a share above 0 and at most 1; it was {self.share}")
        if self.mass is not None and not 0.0 < self.mass <= 1.0:
            raise DeeplayerError(f"--keep auto:P needs a share P above 0 and at most 1; it was {self.mass}")
        if not (0.0 <= self.least <= self.most <= 1.0 and self.most > 0.0):
            raise DeeplayerError(
                "--keep auto:P:LEAST:MOST needs shares of the visual tokens, 0 <= LEAST <= MOST <= 1 and MOST above 0; "
                f"they were {self.least} and {self.most}"
            )
        if self.mass is None and (self.least, self.most) != (0.0, 1.0):
            raise DeeplayerError(f"bounds from {self.least} to {self.most} need a share of the attention: auto:P")
        if self.tokens is not None and self.tokens < 1:
            raise DeeplayerError(f"--keep-tokens must be at least 1; it was {self.tokens}")

    def count(self, n_visual: int) -> int:
        """The largest number of tokens to keep of ``n_visual``: ``max(1, floor(share * n_visual))``, or ``tokens``.

        If their number depends on the content, it is ``max(1, floor(most * n_visual))``.
        """
        if self.mass is not None:
            return share_of(self.most, n_visual)
        if self.tokens is not None:
            return min(self.tokens, n_visual)
        return share_of(self.share, n_visual)


@dataclass(frozen=True)
class StageShare:
    """The number of visual tokens that one stage keeps.

    Attributes:
        budget: the budget of the whole method.
        power: the stage keeps the share ``keep ** power`` of all visual tokens; ``keep`` is the budget as a share. So
            published shares scale with the budget: 0.5, 0.25 and 0.125 are 0.125 to the powers 1/3, 2/3 and 1.
        fixed: the stage keeps this share instead, but never fewer tokens than the budget.
        schedule: the stage keeps a share that goes through these points (budget, share of the stage), instead; see
            `interpolate`.
    """

    budget: Budget
    power: float = 1.0
    fixed: float | None = None
    schedule: Schedule = ()

    def count(self, n_visual: int) -> int:
        """The largest number of an image's ``n_visual`` tokens that the stage keeps."""
        end = self.budget.count(n_visual)
        if self.fixed is not None:
            share = self.fixed
        elif self.schedule:
            share = interpolate(self.schedule, end / n_visual)
        elif self.power == 1.0:
            return end
        else:
            share = (end / n_visual) ** self.power
        return max(end, _floor(n_visual * share))


def interpolate(schedule: Schedule, keep: float) -> float:
    """The share that a stage keeps under a budget of ``keep``.

    Between two points of the schedule, the share is a power of the budget: a straight line if both are logarithms. The
    last point is followed by (1, 1). Below the first point, the share is in the same ratio to the budget as there.
    """
    (low, share_low), *_ = schedule
    if keep <= low:
        return keep * share_low / low
    for high, share_high in (*schedule[1:], (1.0, 1.0)):
        if keep <= high:
            part = math.log(keep / low) / math.log(high / low)
            return share_low * (share_high / share_low) ** part
        low, share_low = high, share_high
    return 1.0


def share_of(share: float, n_visual: int) -> int:
    """The number of tokens that are a share of ``n_visual``, at least 1."""
    return max(1, _floor(share * n_visual))


def _floor(product: float) -> int:
    """Round down, but allow for rounding errors of a product: ``0.29 * 100`` is 28.999999999999996 and gives 29."""
    return math.floor(product + 1e-9)
