"""Notices gold boxes and ids that are written otherwise than the predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deeplayer_cli.boxes import box_iou, to_xyxy
from deeplayer_cli.schema import BoxFormatCheck
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.boxes import Box, BoxFormat
    from deeplayer_cli.schema import Id, Prediction

_CLEARLY_BETTER = 0.1
"""The gain of mean IoU from which another reading of the gold boxes is worth a warning."""

_INTEGER = re.compile(r"\s*(-?)0*(\d+)(?:\.0*)?\s*", re.ASCII)


@dataclass
class GoldCheck:
    """Counts the gold boxes that are in another format by their numbers, or that fit the predictions better as xywh.

    Attributes:
        box_format: how the user says that they are written; ``xyxy`` ends all doubt. None if nobody says.
    """

    box_format: BoxFormat | None = None
    _numbers: BoxFormatCheck = field(init=False)
    _n_judged: int = 0
    _n_better: int = 0
    _n_too_large: int = 0
    _gain: float = 0.0

    def __post_init__(self) -> None:
        self._numbers = BoxFormatCheck(self.box_format or "xyxy")

    def add(self, prediction: Prediction, gold: Box | None, box: Box | None) -> None:
        """Look at the gold box of a row as it is written, and at the box that was predicted for it."""
        if gold is None or self.box_format == "xyxy":
            return
        size = None if prediction.width is None or prediction.height is None else (prediction.width, prediction.height)
        self._numbers.add(gold, size)
        if box is None or self.box_format is not None:
            return
        other = to_xyxy(gold, "xywh")
        gain = box_iou(box, other) - box_iou(box, gold)
        self._n_judged += 1
        self._gain += gain
        self._n_better += gain > 0
        if size is not None:
            self._n_too_large += other[2] > size[0] + 1 or other[3] > size[1] + 1

    def warnings(self) -> list[str]:
        """What speaks against the format of the gold boxes: one sentence, or none."""
        if doubt := self._numbers.doubt():
            return [doubt]
        clearly = self._gain > _CLEARLY_BETTER * self._n_judged and not self._n_too_large
        if clearly and 2 * self._n_better > self._n_judged:
            return [
                f"{self._n_better} of {self._n_judged} gold boxes fit the predictions better as [x, y, width, height] "
                "than as [x1, y1, x2, y2]: give --box-format xywh if that is how they are written"
            ]
        return []


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
        f"{counted(len(alike), 'prediction')} without a gold box only because their ids are written otherwise, such as "
        f"{alike[0]!r}: "
        'ids match only if they have the same type and spelling (0, "0" and "0.0" are three ids)'
    ]


def _spelling(row_id: Id) -> str:
    number = _INTEGER.fullmatch(str(row_id))
    return f"{number[1]}{number[2]}" if number else str(row_id)
