"""Several methods on the same rows: how much accuracy stays, at what cost, and whether a difference is real."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.score import CORRECT_IOU, Rate, clustered_interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from deeplayer_cli.schema import Id, Prediction

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two shares over the same rows, with its 95% interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Run:
    """What one method did with all rows.

    Attributes:
        method: its name.
        keep: the share of visual tokens that was asked for.
        layer: the layer that it drops after.
        ids: of the rows with a gold box, in order.
        images: theirs.
        right: whether their IoU is large enough.
        n_no_box: rows without a box, among all rows.
        n_error: rows in error, among all rows.
        kept: share of the visual tokens that was kept.
        mean_keep: the share that was seen, averaged over layers.
        seconds: how long it took.
    """

    method: str
    keep: float
    layer: int | None
    ids: tuple[Id, ...]
    images: tuple[Hashable, ...]
    right: tuple[bool, ...]
    n_no_box: int
    n_error: int
    kept: float | None
    mean_keep: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a comparison.

    Attributes:
        run: what the method did.
        accuracy: with an interval clustered by image.
        retained: share of the reference's accuracy; None where that is 0.
        difference: to the reference, paired by row; None for the reference itself.
        relative_time: seconds over the reference's.
    """

    run: Run
    accuracy: Rate
    retained: float | None
    difference: Difference | None
    relative_time: float

    def to_dict(self) -> dict[str, object]:
        """The line as JSON values."""
        run = self.run
        return {
            "method": run.method,
            "keep": run.keep,
            "layer": run.layer,
            "n": len(run.right),
            "n_no_box": run.n_no_box,
            "n_error": run.n_error,
            "acc@0.5": self.accuracy.value,
            "acc@0.5_ci95": [self.accuracy.low, self.accuracy.high],
            "retained": self.retained,
            "difference": None if self.difference is None else asdict(self.difference),
            "kept": run.kept,
            "mean_keep": run.mean_keep,
            "seconds": run.seconds,
            "relative_time": self.relative_time,
        }


def gather(predictions: Iterable[Prediction], *, method: str, keep: float, layer: int | None, n_layers: int) -> Run:
    """Reduce a method's predictions to what a comparison needs; ``seconds`` is for the caller to fill in."""
    ids: list[Id] = []
    images: list[Hashable] = []
    right: list[bool] = []
    n_no_box = n_error = visual = kept = 0
    seen = 0.0
    for row in predictions:
        n_no_box += row.status == "no_box"
        n_error += row.status == "error"
        if row.iou is not None:
            ids.append(row.id)
            images.append(row.image)
            right.append(row.iou >= CORRECT_IOU)
        if row.visual_tokens is not None and row.kept_tokens is not None:
            before = n_layers if row.layer is None else row.layer
            visual += row.visual_tokens
            kept += row.kept_tokens
            seen += (before * row.visual_tokens + (n_layers - before) * row.kept_tokens) / n_layers
    return Run(
        *(method, keep, layer, tuple(ids), tuple(images), tuple(right), n_no_box, n_error),
        kept=kept / visual if visual else None,
        mean_keep=seen / visual if visual else None,
        seconds=0.0,
    )


def compare(runs: Sequence[Run], reference: Run) -> list[Line]:
    """Compare runs over the same rows with one of them.

    Raises:
        DeeplayerError: there is nothing to compare, or not the same rows were asked.
    """
    if not reference.right:
        raise DeeplayerError("no row has a gold box: there is nothing to compare")
    return [_line(run, reference) for run in runs]


def paired_difference(right: Sequence[bool], other: Sequence[bool], images: Sequence[Hashable]) -> Difference:
    """``mean(right) - mean(other)`` over the same rows, which are alike within an image.

    Normal interval and test with the cluster-robust variance ``G / (G - 1) * sum_g (sum_i (d_gi - d))^2 / n^2`` over
    images g (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, for paired differences).

    Where every image has the same difference, or there is one image, that variance is 0 and says nothing: a difference
    in two rows would be certain. Then the rows of an image count as one, and half a pair is added to each of the four
    outcomes of a pair (Agresti and Min 2005, Statistics in Medicine 24, 729-740).

    Args:
        right: of the one method, per row.
        other: of the other method.
        images: the rows' images.
    """
    index = {image: number for number, image in enumerate(dict.fromkeys(images))}
    d = np.asarray(right, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    value, groups = float(d.mean()), len(index)
    sums = np.bincount([index[image] for image in images], weights=d - value)
    if np.allclose(sums, 0):
        pairs, net = groups + 2, groups * value
        centre = net / pairs
        error = (groups * float((d**2).mean()) + 1 - net**2 / pairs) ** 0.5 / pairs
    else:
        centre = value
        error = (float((sums**2).sum()) / len(d) ** 2 * groups / (groups - 1)) ** 0.5
    p = 2 * NormalDist().cdf(-abs(centre) / error)
    return Difference(value, max(-1.0, centre - _Z * error), min(1.0, centre + _Z * error), p)


def _line(run: Run, reference: Run) -> Line:
    if run.ids != reference.ids:
        raise DeeplayerError(f"{run.method} and {reference.method} did not answer the same rows")
    accuracy, whole = (sum(one.right) / len(one.right) for one in (run, reference))
    return Line(
        run,
        Rate(accuracy, *clustered_interval(run.right, run.images)),
        accuracy / whole if whole else None,
        None if run is reference else paired_difference(run.right, reference.right, run.images),
        run.seconds / reference.seconds,
    )
