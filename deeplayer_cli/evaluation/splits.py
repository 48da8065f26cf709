"""A comparison by split: methods in lines, splits in columns, and the average over splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import Difference, paired_difference
from deeplayer_cli.evaluation.image_keys import image_numbers
from deeplayer_cli.evaluation.score import (
    NO_VALUE,
    Z95,
    Rate,
    clustered_interval,
    group_name,
    wilson_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy.typing as npt

    from deeplayer_cli.evaluation.compare import MethodRun
    from deeplayer_cli.schema import Prediction


@dataclass(frozen=True)
class SplitLine:
    """A line of a comparison by split.

    Attributes:
        method: name of the line.
        keep: see `MethodRun`.
        layer: see `MethodRun`.
        accuracies: Acc@0.5 of each split; None where a published line has no such split.
        average: mean of the accuracies of the splits, each with the same weight.
        difference: of the average to the reference's, paired by row; None for the reference and for published lines.
        published: whether the figures are published ones. They have no interval: ``low`` and ``high`` are the value.
    """

    method: str
    keep: float | None
    layer: int | None
    accuracies: tuple[Rate | None, ...]
    average: Rate
    difference: Difference | None = None
    published: bool = False


@dataclass(frozen=True)
class SplitTable:
    """A comparison by split.

    Attributes:
        splits: the names of the splits.
        counts: number of rows with a gold box in each; empty for published figures alone.
        lines: the lines.
        reference: name of the line that the others are compared with.
    """

    splits: tuple[str, ...]
    counts: tuple[int, ...]
    lines: tuple[SplitLine, ...]
    reference: str | None

    def to_dict(self) -> dict[str, object]:
        """The table as JSON values."""
        lines = [
            {
                "method": line.method,
                "keep": line.keep,
                "layer": line.layer,
                "published": line.published,
                "acc@0.5": {
                    split: None if rate is None else rate.value if line.published else asdict(rate)
                    for split, rate in zip(self.splits, line.accuracies, strict=True)
                },
                "average": line.average.value if line.published else asdict(line.average),
                "difference": None if line.difference is None else asdict(line.difference),
            }
            for line in self.lines
        ]
        return {"n": dict(zip(self.splits, self.counts, strict=False)), "reference": self.reference, "lines": lines}


def fields_in(by: str) -> list[str]:
    """The fields that ``--by`` names, which commas separate.

    Raises:
        DeeplayerError: one of them is empty.
    """
    fields = [field.strip() for field in by.split(",")]
    if not all(fields):
        raise DeeplayerError(f"--by must be a field, or fields separated by commas, such as dataset,split, not {by!r}")
    return fields


def namer(fields: Sequence[str]) -> Callable[[Prediction], str]:
    """A function that names a row's split: the values of the fields."""
    return lambda row: " ".join(group_name(row, field) for field in fields)


def by_split(runs: Sequence[MethodRun], reference: MethodRun, by: str) -> SplitTable:
    """Compare runs over the same rows by the split of each row.

    The variance of an average, and of a difference of averages, is the cluster-robust one over images of the rows'
    shares in it: a row of a split of n rows has the share ``(x - p) / n``, divided by the number of splits. An image
    with rows in several splits is one cluster. Averages have Wilson's interval for the effective number of rows, as all
    accuracies here; differences have a normal interval. If the variance is 0, the rules of `clustered_interval` and
    `paired_difference` hold.

    Args:
        runs: their ``groups`` name the splits.
        reference: the run that the others are compared with.
        by: the fields that name the splits, for messages.

    Raises:
        DeeplayerError: no row has the fields.
    """
    splits = tuple(dict.fromkeys(reference.groups))
    if all(set(split.split(" ")) == {NO_VALUE} for split in splits):
        raise DeeplayerError(f"no row has a value for {by!r}: name another field of the rows or of their meta")
    counts = tuple(reference.groups.count(split) for split in splits)
    theirs = dict(zip(reference.ids, reference.right, strict=True))
    lines = []
    for run in runs:
        right = np.asarray(run.right, dtype=np.float64)
        groups = np.array([splits.index(group) for group in run.groups])
        rates = tuple(_rate(right[groups == number], run.images, groups == number) for number in range(len(splits)))
        average, error = _average(right, groups, run.images)
        # As in `clustered_interval`: rows never count as more than independent ones.
        least = sum(rate.value * (1 - rate.value) / n for rate, n in zip(rates, counts, strict=True)) / len(splits) ** 2
        variance, spread = max(error**2, least), average * (1 - average)
        effective = max(1.0, spread / variance) if variance else float(len(set(run.images)))
        mean = Rate(average, *wilson_interval(average, effective))
        change = None if run is reference else _difference(run, [theirs[row] for row in run.ids], groups)
        lines.append(SplitLine(run.label, run.keep, run.layer, rates, mean, change))
    return SplitTable(splits, counts, tuple(lines), reference.label)


def _rate(right: npt.NDArray[np.float64], images: Sequence[Hashable], chosen: npt.NDArray[np.bool_]) -> Rate:
    clusters = [image for image, is_chosen in zip(images, chosen, strict=True) if is_chosen]
    return Rate(float(right.mean()), *clustered_interval(right.tolist(), clusters))


def _average(
    values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], images: Sequence[Hashable]
) -> tuple[float, float]:
    """The mean of the groups' means, and its standard error."""
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=values) / counts
    shares = (values - means[groups]) / counts[groups] / len(counts)
    sums = np.bincount(image_numbers(images), weights=shares)
    n_images = len(sums)
    correction = n_images / (n_images - 1) if n_images > 1 else 1.0
    return float(means.mean()), float((correction * (sums**2).sum()) ** 0.5)


def _difference(run: MethodRun, theirs: Sequence[bool], groups: npt.NDArray[np.int64]) -> Difference:
    d = np.asarray(run.right, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    value, error = _average(d, groups, run.images)
    if error < 1e-12:
        return replace(paired_difference(run.right, theirs, run.images), value=value)
    p = 2 * NormalDist().cdf(-abs(value) / error)
    return Difference(value, max(-1.0, value - Z95 * error), min(1.0, value + Z95 * error), p, int(np.count_nonzero(d)))
