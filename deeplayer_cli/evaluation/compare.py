"""Several methods on the same rows: how much accuracy stays, at what cost, and whether a difference is real."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.boxes import CORRECT_IOU
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.score import Rate, clustered_interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from deeplayer_cli.cost.model import Cost
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
class MethodRun:
    """What one method did with all rows.

    Attributes:
        label: what it is called, see `label_for`.
        keep: the share of visual tokens that was asked for; 1.0 where nothing is pruned, None for a number of tokens.
        layer: the layer that it first drops after; None where nothing is pruned.
        ids: of the rows with a gold box.
        images: theirs.
        right: whether their IoU is large enough.
        n_no_box: rows without a box, among all rows.
        n_error: rows in error, among all rows.
        kept: share of the visual tokens that was kept.
        cost: of all rows, if known.
        seconds: how long it took, if it was timed whole.
    """

    label: str
    keep: float | None
    layer: int | None
    ids: tuple[Id, ...]
    images: tuple[Hashable, ...]
    right: tuple[bool, ...]
    n_no_box: int
    n_error: int
    kept: float | None
    cost: Cost | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One line of a comparison.

    Attributes:
        run: what the method did.
        accuracy: with an interval clustered by image.
        retained: share of the reference's accuracy; None where that is 0.
        difference: to the reference, paired by row; None for the reference itself.
        relative_time: seconds over the reference's; None if either was not timed.
    """

    run: MethodRun
    accuracy: Rate
    retained: float | None
    difference: Difference | None
    relative_time: float | None

    def to_dict(self) -> dict[str, object]:
        """The line as JSON values."""
        run = self.run
        return {
            "method": run.label,
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
            "mean_keep": run.cost and run.cost.mean_keep,
            "gflops": run.cost and run.cost.gflops,
            "kv_bytes": run.cost and run.cost.kv_bytes,
            "seconds": run.seconds,
            "relative_time": self.relative_time,
        }


def label_for(method: object, *, layer: object = None, max_tiles: object = None, query: object = "last") -> str:
    """What a line is called: its method, and whatever of it is not as usual."""
    unusual = {"layer": layer, "max-tiles": max_tiles, "query": None if query == "last" else query}
    return "".join([str(method), *(f"@{name}={value}" for name, value in unusual.items() if value is not None)])


def gather(predictions: Iterable[Prediction], *, label: str, keep: float | None) -> MethodRun:
    """Reduce a method's predictions to what a comparison needs; cost and time are for the caller to add."""
    ids: list[Id] = []
    images: list[Hashable] = []
    right: list[bool] = []
    n_no_box = n_error = visual = kept = 0
    layer = None
    for row in predictions:
        layer = row.layer
        n_no_box += row.status == "no_box"
        n_error += row.status == "error"
        if row.iou is not None:
            ids.append(row.id)
            images.append(("image", row.image) if row.image is not None else ("row", row.id))
            right.append(row.iou >= CORRECT_IOU)
        if row.visual_tokens is not None and row.kept_tokens is not None:
            visual += row.visual_tokens
            kept += row.kept_tokens
    return MethodRun(
        *(label, 1.0 if layer is None else keep, layer, tuple(ids), tuple(images), tuple(right), n_no_box, n_error),
        kept=kept / visual if visual else None,
    )


def line_called(name: str, labels: Sequence[str]) -> int:
    """Which of the lines is labelled ``name``, or else the one whose method is called so.

    Raises:
        DeeplayerError: none is, or more than one.
    """
    found = [place for place, one in enumerate(labels) if one == name]
    found = found or [place for place, one in enumerate(labels) if one.split("@")[0] == name]
    if not found:
        raise DeeplayerError(f"--reference {name} is none of the lines: {', '.join(labels)}")
    if len(found) > 1:
        lines = ", ".join(labels[place] for place in found)
        raise DeeplayerError(f"--reference {name} is more than one line ({lines}): give one --keep, or the whole name")
    return found[0]


def compare(runs: Sequence[MethodRun], reference: MethodRun) -> list[ComparedRun]:
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


def _line(run: MethodRun, reference: MethodRun) -> ComparedRun:
    theirs = dict(zip(reference.ids, reference.right, strict=True))
    if set(run.ids) != theirs.keys():
        both = len(theirs.keys() & set(run.ids))
        raise DeeplayerError(
            f"{run.label} and {reference.label} did not answer the same rows: of {len(run.ids)} and {len(theirs)} with "
            f"gold, {both} are in both; finish both runs on the same input"
        )
    accuracy, whole = (sum(one.right) / len(one.right) for one in (run, reference))
    seconds, whole_seconds = run.seconds, reference.seconds
    return ComparedRun(
        run,
        Rate(accuracy, *clustered_interval(run.right, run.images)),
        accuracy / whole if whole else None,
        None if run is reference else paired_difference(run.right, [theirs[row_id] for row_id in run.ids], run.images),
        None if seconds is None or whole_seconds is None else seconds / whole_seconds,
    )
