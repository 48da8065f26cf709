"""Compares several methods on the same rows: accuracy, cost, and paired differences with p-values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.boxes import CORRECT_IOU
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.gold_check import GoldCheck
from deeplayer_cli.evaluation.image_keys import ImageKeys, image_numbers
from deeplayer_cli.evaluation.score import Z95, Rate, clustered_interval
from deeplayer_cli.runtime.failure_kinds import FailureKinds
from deeplayer_cli.schema import BadRequest
from deeplayer_cli.schema.values import show

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.cost.model import Cost
    from deeplayer_cli.schema import Id, Prediction, Request

LABELLED = ("layer", "max_tiles", "query", "positions", "keep_mass", "keep_least", "keep_most", "fallback")
"""The settings that tell lines of one method apart, besides its budget; see `label_for`."""

ASKED = ("expression", "gold", "image_id")
"""What rows of one id must share, as far as they have it: an image that was not read has no id."""

Asked = tuple["str | None", "Box | None", "str | None"]
"""The values of `ASKED`."""

_NO_GOLD = "no row has a gold box: there is nothing to compare"


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two accuracies over the same rows, with its 95% interval and two-sided p-value.

    Attributes:
        value: the difference.
        low: lower end of the interval.
        high: upper end of the interval.
        p: p-value.
        n_differ: number of rows in which the two differ.
    """

    value: float
    low: float
    high: float
    p: float
    n_differ: int


@dataclass(frozen=True, slots=True)
class MethodRun:
    """The results of one method on all rows.

    Attributes:
        label: name of the line, see `label_for`.
        keep: the ``--keep`` of the run; 1.0 if nothing is pruned, None if an absolute number of tokens or a share of
            the attention was set.
        layer: the layer of the first drop; None if nothing is pruned.
        ids: ids of the rows with a gold box.
        images: the image of each of these rows.
        right: for each of these rows, whether its IoU is at least 0.5.
        n_rows: number of all rows, with or without a gold box.
        n_no_box: number of rows without a box, among all rows.
        n_error: number of error rows, among all rows.
        kept: share of the visual tokens that was kept; None if no row was answered.
        cost: cost of all rows; None if unknown.
        seconds: time of all rows in seconds; None if not all rows were timed.
        warnings: what looks wrong about the gold boxes, one sentence each.
        failures: why rows failed, one sentence for each kind of error.
        groups: the split of each row with a gold box; empty if the rows are not grouped.
        asked: `ASKED` of each row with a gold box; empty if unknown.
    """

    label: str
    keep: float | None
    layer: int | None
    ids: tuple[Id, ...]
    images: tuple[Hashable, ...]
    right: tuple[bool, ...]
    n_rows: int
    n_no_box: int
    n_error: int
    kept: float | None
    cost: Cost | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One line of a comparison.

    Attributes:
        run: the results of the method.
        accuracy: Acc@0.5, with a 95% interval clustered by image.
        retained: accuracy divided by the reference's accuracy; None if that is 0.
        difference: difference of accuracy to the reference, paired by row; None for the reference itself.
        speed: the reference's seconds divided by seconds, so larger is faster; None if one of them was not timed.
    """

    run: MethodRun
    accuracy: Rate
    retained: float | None
    difference: Difference | None
    speed: float | None

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
            "speed": self.speed,
        }


def label_for(
    method: object,
    *,
    layer: object = None,
    max_tiles: object = None,
    query: object = "last",
    positions: object = "keep",
    keep_mass: object = None,
    keep_least: object = None,
    keep_most: object = None,
    fallback: object = None,
) -> str:
    """The name of a line: the method, then ``@name=value`` for each option that is not the default."""
    values = {"layer": layer, "max-tiles": max_tiles, "query": query, "positions": positions}
    bounded = keep_least is not None or keep_most is not None
    bounds = f":{keep_least or 0.0}:{1.0 if keep_most is None else keep_most}" if bounded else ""
    values |= {"keep": None if keep_mass is None else f"auto:{keep_mass}{bounds}", "fallback": fallback}
    defaults = {"query": "last", "positions": "keep"}
    return "".join(
        [str(method), *(f"@{name}={value}" for name, value in values.items() if value != defaults.get(name))]
    )


def gather(
    predictions: Iterable[Prediction],
    *,
    label: str,
    keep: float | None,
    split_of: Callable[[Prediction], str] | None = None,
) -> MethodRun:
    """Reduce a method's predictions to a `MethodRun`; the caller adds cost and time.

    Args:
        predictions: all rows of the method.
        label: name of the line.
        keep: the ``--keep`` of the run; None for an absolute number of tokens or a share of the attention.
        split_of: names the split of a row.
    """
    ids: list[Id] = []
    images: list[Hashable] = []
    right: list[bool] = []
    groups: list[str] = []
    asked: list[Asked] = []
    n_rows = n_no_box = n_error = n_fell_back = visual = kept = 0
    layer, check, failures, keys = None, GoldCheck(), FailureKinds(), ImageKeys()
    for row in predictions:
        n_rows += 1
        check.add(row, row.gold, row.box)
        failures.add(row)
        layer = layer if row.layer is None else row.layer  # the error row of a worker that died has none
        n_fell_back += row.fallback is not None
        n_no_box += row.status == "no_box"
        n_error += row.status == "error"
        if row.iou is not None:
            ids.append(row.id)
            images.append(keys.add(row))
            right.append(row.iou >= CORRECT_IOU)
            asked.append(asked_of(row))
            groups += [split_of(row)] if split_of else []
        if row.visual_tokens is not None and row.kept_tokens is not None:
            visual += row.visual_tokens
            kept += row.kept_tokens
    # The layer of freeze drops nothing.
    is_unpruned = layer is None or (keep is not None and not n_fell_back and 0 < visual == kept)
    return MethodRun(
        label=label,
        keep=1.0 if is_unpruned else keep,
        layer=layer,
        ids=tuple(ids),
        images=tuple(keys.joined(images)),
        right=tuple(right),
        n_rows=n_rows,
        n_no_box=n_no_box,
        n_error=n_error,
        kept=kept / visual if visual else None,
        warnings=tuple(check.warnings()),
        failures=tuple(failures.sentences()),
        groups=tuple(groups),
        asked=tuple(asked),
    )


def asked_of(row: Prediction) -> Asked:
    """The values of `ASKED` of a row."""
    return row.expression, row.gold, row.image_id


def line_called(name: str, labels: Sequence[str]) -> int:
    """The index of the line with the label ``name``, or else of the line whose method has this name.

    Raises:
        DeeplayerError: no line has this name, or several have it.
    """
    found = [place for place, one in enumerate(labels) if one == name]
    found = found or [place for place, one in enumerate(labels) if one.split("@")[0] == name]
    if not found:
        raise DeeplayerError(f"--reference {name} is not one of the lines: {', '.join(labels)}")
    if len(found) > 1:
        lines = ", ".join(labels[place] for place in found)
        raise DeeplayerError(f"--reference {name} names several lines ({lines}): give one --keep, or the whole name")
    return found[0]


def require_gold(requests: Iterable[Request | BadRequest]) -> None:
    """Refuse requests whose answers cannot be compared; it reads on to the first one with a gold box.

    Raises:
        DeeplayerError: no row has a gold box; the sentence has the reason of the first row that cannot be read.
    """
    reason = ""
    for row in requests:
        if row.gold is not None:
            return
        if isinstance(row, BadRequest) and not reason:
            reason = f"; {row.error.message}"
    raise DeeplayerError(f"{_NO_GOLD}{reason}")


def compare(runs: Sequence[MethodRun], reference: MethodRun) -> list[ComparedRun]:
    """Compare every run with the reference run, over the same rows.

    Raises:
        DeeplayerError: no row has a gold box, or the runs did not answer the same rows.
    """
    if not reference.right:
        raise DeeplayerError(_NO_GOLD)
    return [_line(run, reference) for run in runs]


def difference_to(reference: MethodRun, run: MethodRun) -> Difference:
    """The difference of a run's accuracy to that of a reference with the same ids, see `paired_difference`."""
    theirs = dict(zip(reference.ids, reference.right, strict=True))
    return paired_difference(run.right, [theirs[row_id] for row_id in run.ids], run.images)


def paired_difference(right: Sequence[float], other: Sequence[float], images: Sequence[Hashable]) -> Difference:
    """``mean(right) - mean(other)`` over the same rows, with a 95% interval and a p-value clustered by image.

    Interval and test are normal, with the cluster-robust variance ``G / (G - 1) * sum_g (sum_i (d_gi - d))^2 / n^2``
    over G images g and their rows i (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640).

    If every image has the same difference, or there is only one image, this variance is 0, and a difference in two rows
    would look certain. In this case the rows of an image count as one pair, and half a pair is added to each of the
    four outcomes of a pair (Agresti and Min 2005, Statistics in Medicine 24, 729-740).

    If no row differs, the interval is ``-b`` to ``b`` with ``b = 1 - 0.05^(1 / G)``, about 3 / G (the rule of three,
    Hanley and Lippman-Hand 1983, JAMA 249, 1743-1745): if more than a share b of images differed, that none of G does
    would have a chance of less than 5%; and a difference cannot be larger than the share that differs.

    Args:
        right: for each row, whether the one method is right, or another value from 0 to 1.
        other: for each row, the same of the other method.
        images: the image of each row.
    """
    d = np.asarray(right, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    value, n_differ = float(d.mean()), int(np.count_nonzero(d))
    sums = np.bincount(image_numbers(images), weights=d - value)
    groups = len(sums)
    if not n_differ:
        bound = 1 - 0.05 ** (1 / groups)
        return Difference(0.0, -bound, bound, 1.0, 0)
    if np.allclose(sums, 0):
        pairs, net = groups + 2, groups * value
        centre = net / pairs
        error = (groups * float((d**2).mean()) + 1 - net**2 / pairs) ** 0.5 / pairs
    else:
        centre = value
        error = (float((sums**2).sum()) / len(d) ** 2 * groups / (groups - 1)) ** 0.5
    p = 2 * NormalDist().cdf(-abs(centre) / error)
    return Difference(value, max(-1.0, centre - Z95 * error), min(1.0, centre + Z95 * error), p, n_differ)


def require_same_rows(run: MethodRun, reference: MethodRun) -> None:
    """Refuse two runs whose rows have the same ids, but are about other images, expressions or gold boxes.

    Raises:
        DeeplayerError: the sentence names the first such row.
    """
    if not run.asked or not reference.asked:
        return
    theirs = dict(zip(reference.ids, reference.asked, strict=True))
    for row, asked in zip(run.ids, run.asked, strict=True):
        for name, ours, other in zip(ASKED, asked, theirs.get(row, asked), strict=True):
            if None not in (ours, other) and ours != other:
                raise DeeplayerError(
                    f"{reference.label} and {run.label} did not answer the same rows: {name} of id {row!r} is "
                    f"{show(other)} in the first and {show(ours)} in the second; compare runs on the same input, and "
                    "keep those of another input in a folder of their own"
                )


def _line(run: MethodRun, reference: MethodRun) -> ComparedRun:
    ours, theirs = set(run.ids), set(reference.ids)
    if ours != theirs:
        raise DeeplayerError(
            f"{run.label} and {reference.label} did not answer the same rows: of {len(run.ids)} and {len(theirs)} with "
            f"gold, {len(ours & theirs)} are in both; finish both runs on the same input"
        )
    require_same_rows(run, reference)
    accuracy, accuracy_of_reference = (sum(one.right) / len(one.right) for one in (run, reference))
    return ComparedRun(
        run,
        Rate(accuracy, *clustered_interval(run.right, run.images)),
        accuracy / accuracy_of_reference if accuracy_of_reference else None,
        None if run is reference else difference_to(reference, run),
        None if not run.seconds or reference.seconds is None else reference.seconds / run.seconds,
    )
