"""Notices gold boxes and ids that are written otherwise than the predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.boxes import box_iou

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.schema import Id, Prediction

_CLEARLY_BETTER = 0.1
"""The gain of mean IoU from which another reading of the gold boxes is worth a warning."""

_INTEGER = re.compile(r"\s*(-?)0*(\d+)(?:\.0*)?\s*", re.ASCII)


@dataclass
class GoldCheck:
    """Counts the gold boxes that look like fractions of the image, or like ``[x, y, width, height]``."""

    n: int = 0
    _n_fractions: int = 0
    _n_judged: int = 0
    _n_better: int = 0
    _n_too_large: int = 0
    _gain: float = 0.0

    def add(self, prediction: Prediction, gold: Box | None, box: Box | None) -> None:
        """Look at the gold box of a row, and at the box that was predicted for it."""
        if gold is None:
            return
        self.n += 1
        self._n_fractions += min(gold) >= 0 and max(gold) <= 1
        if box is None:
            return
        x, y, width, height = gold
        other = (x, y, x + width, y + height)
        gain = box_iou(box, other) - box_iou(box, gold)
        self._n_judged += 1
        self._gain += gain
        self._n_better += gain > 0
        if prediction.width is not None and prediction.height is not None:
            self._n_too_large += other[2] > prediction.width + 1 or other[3] > prediction.height + 1

    def warnings(self) -> list[str]:
        """One sentence for each convention that most boxes seem to follow instead of pixels ``[x1, y1, x2, y2]``."""
        found = []
        if 2 * self._n_fractions > self.n:
            found.append(
                f"{self._n_fractions} of {self.n} gold boxes lie between 0 and 1: gold boxes must be in pixels; "
                "multiply them by the image's width and height"
            )
        clearly = self._gain > _CLEARLY_BETTER * self._n_judged and not self._n_too_large
        if clearly and 2 * self._n_better > self._n_judged:
            found.append(
                f"{self._n_better} of {self._n_judged} gold boxes fit the predictions better as [x, y, width, height]: "
                "gold boxes must be [x1, y1, x2, y2]; convert them if they are not"
            )
        return found


def unlike_ids(predicted: Iterable[Id], gold: Iterable[Id]) -> list[str]:
    """One sentence if ids without a partner would have one, were they of the same type; an empty list otherwise.

    Args:
        predicted: ids of predictions that have no gold box.
        gold: ids of gold boxes that have no prediction.
    """
    spelled = {_spelling(one) for one in gold}
    alike = [one for one in predicted if _spelling(one) in spelled]
    if not alike:
        return []
    return [
        f"{len(alike)} predictions have no gold box only because their ids are written otherwise, such as "
        f"{alike[0]!r}: "
        'ids match only if they have the same type and spelling (0, "0" and "0.0" are three ids)'
    ]


def _spelling(row_id: Id) -> str:
    number = _INTEGER.fullmatch(str(row_id))
    return f"{number[1]}{number[2]}" if number else str(row_id)
