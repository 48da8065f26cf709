"""Chooses the layer after which to prune, on some rows, and says on others what the choice is worth."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import paired_difference, require_same_rows
from deeplayer_cli.evaluation.image_keys import image_numbers
from deeplayer_cli.evaluation.score import Rate, clustered_interval
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from deeplayer_cli.cost.model import Cost
    from deeplayer_cli.evaluation.compare import Difference, MethodRun
    from deeplayer_cli.schema import Id

DRAWS = 2000
"""Bootstrap samples."""


@dataclass(frozen=True)
class RowSplit:
    """Two sets of rows that share no image.

    Attributes:
        select: ids of the rows that choose the layer.
        report: ids of the rows that say what the choice is worth.
        n_left_out: number of rows with a gold box that are in neither: nobody named them, or the other set has their
            image.
    """

    select: frozenset[Id]
    report: frozenset[Id]
    n_left_out: int = 0


@dataclass(frozen=True)
class Accuracy:
    """Acc@0.5 of some rows.

    Attributes:
        rate: the accuracy, with its 95% interval clustered by image.
        n: number of rows.
        n_images: number of images.
    """

    rate: Rate
    n: int
    n_images: int

    def to_dict(self) -> dict[str, object]:
        """The accuracy as JSON values."""
        rate = self.rate
        return {"acc@0.5": rate.value, "acc@0.5_ci95": [rate.low, rate.high], "n": self.n, "n_images": self.n_images}


@dataclass(frozen=True)
class SweptLayer:
    """A layer of a sweep.

    Attributes:
        layer: counted from 1.
        accuracy: on the selection rows, after pruning there.
        wins: share of the bootstrap samples of images in which this layer is the best.
        cost: of all rows; None if unknown.
    """

    layer: int
    accuracy: Accuracy
    wins: float
    cost: Cost | None


@dataclass(frozen=True)
class Choice:
    """The layer that a sweep chooses.

    Attributes:
        layers: the swept layers, from the first on.
        layer: the chosen one: the best on the selection rows; of equally good ones the first, which is the cheapest.
        unpruned: accuracy on the selection rows without pruning.
        held_out: accuracy of the chosen layer on the report rows.
        held_out_unpruned: accuracy on the report rows without pruning.
        difference: of these two, paired by row.
    """

    layers: Sequence[SweptLayer]
    layer: SweptLayer
    unpruned: Accuracy
    held_out: Accuracy
    held_out_unpruned: Accuracy
    difference: Difference

    def to_dict(self) -> dict[str, object]:
        """The choice as JSON values."""
        return {
            "chosen": self.layer.layer,
            "chosen_in": self.layer.wins,
            "select": {"unpruned": self.unpruned.to_dict(), "chosen": self.layer.accuracy.to_dict()},
            "report": {
                "unpruned": self.held_out_unpruned.to_dict(),
                "chosen": self.held_out.to_dict(),
                "difference": asdict(self.difference),
            },
        }


def split_rows(
    image_of: Mapping[Id, Hashable], select: Collection[Id] | None, report: Collection[Id] | None, *, seed: int = 0
) -> RowSplit:
    """Split the rows with a gold box into rows that choose, and rows that report.

    Without ``select`` and ``report``, half of the images choose. With one of them, the other rows are the other set,
    without the images of the first.

    Args:
        image_of: the image of each row with a gold box, by the row's id.
        select: ids of the rows that may choose.
        report: ids of the rows that may report.
        seed: of the split by image.

    Raises:
        DeeplayerError: both sets name the same image, or a set has no row.
    """
    if select is None and report is None:
        order = sorted(set(image_of.values()), key=lambda image: _digest(seed, image))
        choosing = set(order[::2])
        select = [row for row, image in image_of.items() if image in choosing]
    first, second = (None if rows is None else frozenset(rows) & image_of.keys() for rows in (select, report))
    if first is not None and second is not None:
        _refuse_shared_images(first, second, image_of)
        return _filled(RowSplit(first, second, len(image_of) - len(first) - len(second)))
    named = first if first is not None else second
    assert named is not None  # noqa: S101 - one of both is given by now
    taken = {image_of[row] for row in named}
    rest = frozenset(row for row, image in image_of.items() if image not in taken)
    left_out = len(image_of) - len(named) - len(rest)
    return _filled(RowSplit(named, rest, left_out) if first is not None else RowSplit(rest, named, left_out))


def choose_layer(runs: Mapping[int, MethodRun], unpruned: MethodRun, split: RowSplit, *, seed: int = 0) -> Choice:
    """Choose the layer with the highest accuracy on the selection rows, and report on the report rows.

    How sure the choice is comes from bootstrap samples of the selection images: the share of samples in which a layer
    is the best.

    Args:
        runs: the runs by layer; they answered the same rows as ``unpruned``.
        unpruned: the run without pruning.
        split: the rows.
        seed: of the bootstrap.
    """
    layers = sorted(runs)
    for run in runs.values():
        require_same_rows(run, unpruned)
    wins = _wins([runs[layer] for layer in layers], split.select, seed)
    swept = [
        SweptLayer(layer, accuracy_on(runs[layer], split.select), share, runs[layer].cost)
        for layer, share in zip(layers, wins, strict=True)
    ]
    best = max(swept, key=lambda one: one.accuracy.rate.value)  # the first of equals
    right, images = _rows(runs[best.layer], split.report)
    right_unpruned, _ = _rows(unpruned, split.report)
    return Choice(
        swept,
        best,
        accuracy_on(unpruned, split.select),
        accuracy_on(runs[best.layer], split.report),
        accuracy_on(unpruned, split.report),
        paired_difference(right, right_unpruned, images),
    )


def accuracy_on(run: MethodRun, ids: frozenset[Id]) -> Accuracy:
    """The accuracy of a run on the rows ``ids``, at least one."""
    right, images = _rows(run, ids)
    return Accuracy(Rate(sum(right) / len(right), *clustered_interval(right, images)), len(right), len(set(images)))


def _wins(runs: Sequence[MethodRun], ids: frozenset[Id], seed: int) -> list[float]:
    """Share of the bootstrap samples of images in which each run is the best; the first of equals counts."""
    _, images = _rows(runs[0], ids)
    groups = image_numbers(images)
    n_rows = np.bincount(groups)
    n_images = len(n_rows)
    n_right = np.stack([np.bincount(groups, weights=_rows(run, ids)[0]) for run in runs])  # (runs, images)
    random = np.random.default_rng(seed)
    times = random.multinomial(n_images, np.full(n_images, 1 / n_images), size=DRAWS)  # (draws, images)
    # Counts are whole numbers, so equal accuracies are exactly equal.
    best = (times @ n_right.T / (times @ n_rows)[:, None]).argmax(1)
    return [float(share) for share in np.bincount(best, minlength=len(runs)) / DRAWS]


def _rows(run: MethodRun, ids: frozenset[Id]) -> tuple[list[bool], list[Hashable]]:
    """Whether the rows ``ids`` are right, and their images, in an order that is the same for all runs."""
    rows = {row: (right, image) for row, right, image in zip(run.ids, run.right, run.images, strict=True) if row in ids}
    missing = len(ids) - len(rows)
    if missing:
        raise DeeplayerError(f"{run.label} has no answer to {missing} of the rows: finish it on the same input")
    found = [rows[row] for row in sorted(rows, key=repr)]
    return [right for right, _ in found], [image for _, image in found]


def _refuse_shared_images(select: frozenset[Id], report: frozenset[Id], image_of: Mapping[Id, Hashable]) -> None:
    both = {image_of[row] for row in select} & {image_of[row] for row in report}
    if both:
        shared = sum(image_of[row] in both for row in report)
        raise DeeplayerError(
            f"--select-on and --report-on share {counted(len(both), 'image')}, with {counted(shared, 'report row')}: "
            "rows that chose the layer, or share an image with them, cannot report what the choice is worth"
        )


def _filled(split: RowSplit) -> RowSplit:
    for name, rows in (("selection", split.select), ("report", split.report)):
        if not rows:
            raise DeeplayerError(
                f"there is no {name} row: a sweep needs rows with gold boxes about at least two images, "
                "one to choose with and one to report on"
            )
    return split


def _digest(seed: int, image: Hashable) -> bytes:
    return hashlib.blake2b(f"{seed}\0{image!r}".encode(), digest_size=8).digest()
