"""How well the score of a row tells right boxes from wrong ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_SCORES = (0.5, 0.8, 0.95)
"""The thresholds that a report shows."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The rows whose score is at least ``least``.

    Attributes:
        least: the threshold.
        share: their share of the rows that have a score, from 0.0 to 1.0.
        accuracy: the share of them that are right; None if there is none.
    """

    least: float
    share: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class ScoreQuality:
    """How well a score ranks rows.

    Attributes:
        auc: the chance that a right row has a higher score than a wrong one, ties counted half: the area under the ROC
            curve (Hanley and McNeil 1982, Radiology 143, 29-36). 0.5 is chance, 1.0 is perfect.
        thresholds: what remains above each of `LEAST_SCORES`.
    """

    auc: float
    thresholds: tuple[Threshold, ...]

    @classmethod
    def from_rows(cls, scores: Sequence[float], right: Sequence[bool]) -> ScoreQuality | None:
        """Judge the scores of rows; None if not both right and wrong ones are among them."""
        values, is_right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
        n_right, n_wrong = int(is_right.sum()), int((~is_right).sum())
        if not n_right or not n_wrong:
            return None
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks = (counts.cumsum() - (counts - 1) / 2)[places]  # from 1; equal scores share their mean rank
        auc = (float(ranks[is_right].sum()) - n_right * (n_right + 1) / 2) / (n_right * n_wrong)
        above = [(least, values >= least) for least in LEAST_SCORES]
        thresholds = [
            Threshold(least, float(kept.mean()), float(is_right[kept].mean()) if kept.any() else None)
            for least, kept in above
        ]
        return cls(auc, tuple(thresholds))

    def to_dict(self) -> dict[str, object]:
        """The figures as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a sentence."""
        kept = [
            f"{one.accuracy:.1%} of the {one.share:.1%} with at least {one.least:g}"
            for one in self.thresholds
            if one.accuracy is not None
        ]
        right = f"; right are {', '.join(kept)}" if kept else ""
        return f"score: AUC {self.auc:.3f} between right and wrong boxes{right}."
