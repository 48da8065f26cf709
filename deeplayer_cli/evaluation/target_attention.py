"""How much of a layer's attention falls on the target: the visual tokens in a row's gold box."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.evaluation.prior_effect import kept_shares
from deeplayer_cli.evaluation.score import Rate, clustered_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.evaluation.attention_maps import Booleans, Floats, ImageAttention
    from deeplayer_cli.pruning import Budget, QueryRowKind


@dataclass(frozen=True)
class TargetAttention:
    """How a layer's attention treats the tokens in the gold boxes; means over rows with 95% intervals by image.

    Attributes:
        mass: share of the attention to visual tokens that falls on them.
        in_box: share of the kept tokens that lie in the gold box, if the highest attention decides.
        kept: share of the tokens in the gold box that are kept.
        rank: mean rank of the tokens in the gold box, from 0 (the highest attention) to 1; 0.5 by chance.
    """

    mass: Rate
    in_box: Rate
    kept: Rate
    rank: Rate

    @property
    def rates(self) -> dict[str, Rate]:
        """The measures by name."""
        return {"mass": self.mass, "in_box": self.in_box, "kept": self.kept, "rank": self.rank}

    def to_dict(self) -> dict[str, object]:
        """The measures as JSON values."""
        return {name: asdict(rate) for name, rate in self.rates.items()}


@dataclass(frozen=True)
class TargetMeasures:
    """The attention of all layers to the targets.

    Attributes:
        by_kind: for each kind of query rows, one entry for each decoder layer; empty without rows that have a target.
        area: mean share of the visual tokens that lie in the gold box; what ``mass`` and ``in_box`` are by chance.
        n_rows: number of rows with a target.
        n_images: number of their images.
    """

    by_kind: dict[QueryRowKind, list[TargetAttention]]
    area: float
    n_rows: int
    n_images: int


def measure_targets(images: Iterable[ImageAttention], budget: Budget) -> TargetMeasures:
    """Measure how much of the attention of every layer falls on the targets.

    Args:
        images: at least one.
        budget: how many tokens are kept.
    """
    found: defaultdict[QueryRowKind, list[Floats]] = defaultdict(list)  # (measures, L, rows) of each image
    clusters: list[str] = []
    areas: list[float] = []
    for image in images:
        known = image.targets.any(1)
        if not known.any():
            continue
        targets = image.targets[known]
        clusters += [image.digest] * len(targets)
        areas += targets.mean(1).tolist()
        for kind, attention in image.by_kind.items():
            found[kind].append(_measures(attention[:, known], targets, budget.count(targets.shape[1])))
    by_kind = {kind: _means(np.concatenate(parts, axis=-1), clusters) for kind, parts in found.items()}
    return TargetMeasures(by_kind, float(np.mean(areas)) if areas else 0.0, len(areas), len(set(clusters)))


def _measures(attention: Floats, targets: Booleans, count: int) -> Floats:
    """Mass, share of the kept tokens, kept share and rank, (4, L, R), of attention (L, R, n) and targets (R, n)."""
    size, n_visual = targets.sum(-1), targets.shape[1]
    mass = (attention * targets).sum(-1) / attention.sum(-1)
    kept = kept_shares(attention, targets, count)
    # Ranks of equal attention are those of a stable order, as in the selection.
    ranks = (-attention).argsort(-1, kind="stable").argsort(-1)
    rank = (ranks * targets).sum(-1) / size / max(1, n_visual - 1)
    return np.stack([mass, kept * size / count, kept, rank])


def _means(values: Floats, clusters: list[str]) -> list[TargetAttention]:
    return [
        TargetAttention(*(Rate(float(rows.mean()), *clustered_interval(rows.tolist(), clusters)) for rows in measures))
        for measures in np.moveaxis(values, 1, 0)
    ]
