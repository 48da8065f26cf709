"""Whether dividing attention by a prior helps a layer to keep the target's tokens (D2Pruner, arXiv:2512.19443)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.evaluation.compare import Difference, paired_difference
from deeplayer_cli.pruning.prior import EPSILON

if TYPE_CHECKING:
    from deeplayer_cli.evaluation.attention_maps import Floats, ImageAttention
    from deeplayer_cli.pruning import Budget, QueryRowKind


@dataclass(frozen=True)
class PriorEffect:
    """Two ways to choose the tokens that a layer keeps, over rows with a gold box.

    Attributes:
        kept: share of the tokens in the gold box that are kept by attention, as a mean over rows.
        kept_divided: the same by attention divided by the prior.
        difference: the second minus the first, paired by row and clustered by image.
    """

    kept: float
    kept_divided: float
    difference: Difference


class PriorTest:
    """Collects images, and compares attention with attention divided by a prior in every layer.

    The prior is made as `runtime.calibrate` makes it, with the first of the generic questions, but for each image from
    the other images only.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[ImageAttention, Floats]] = []
        self._sums: defaultdict[str, Floats | float] = defaultdict(float)  # (2, L, tokens per tile)
        self._counts: defaultdict[str, Floats | float] = defaultdict(float)  # (2, 1, 1)

    def add(self, image: ImageAttention, kind: QueryRowKind) -> None:
        """Add an image, with the attention of one kind of query rows."""
        self._rows.append((image, image.by_kind[kind].astype(np.float32)))  # half the memory
        if image.generic.shape[1]:
            asked = image.generic[:, 0]
            by_tile = np.moveaxis((asked * asked.shape[-1]).reshape(len(asked), image.n_tiles, -1), 1, 0)
            n_grid = image.grid[0] * image.grid[1] if image.n_tiles > 1 else 0
            self._sums[image.digest] += np.stack([by_tile[:n_grid].sum(0), by_tile[-1]])
            self._counts[image.digest] += np.array([n_grid, 1.0]).reshape(2, 1, 1)

    def results(self, budget: Budget) -> list[PriorEffect] | None:
        """The effect in every layer; None without gold boxes, or with one image only.

        Args:
            budget: how many tokens are kept.
        """
        if len(self._sums) < 2:
            return None
        found: list[Floats] = []  # (2, L, rows of an image)
        images: list[str] = []
        for image, attention in self._rows:
            known = image.targets.any(1)
            if known.any():
                divided = attention / (self._prior_without(image)[:, None] + EPSILON)
                targets, count = image.targets[known], budget.count(attention.shape[-1])
                scores = np.stack([attention[:, known], divided[:, known]])
                found.append(kept_shares(scores, targets, count))
                images += [image.digest] * int(known.sum())
        if not found:
            return None
        shares = np.concatenate(found, axis=-1)
        return [
            PriorEffect(float(kept.mean()), float(divided.mean()), paired_difference(divided, kept, images))
            for kept, divided in np.moveaxis(shares, 1, 0)
        ]

    def _prior_without(self, image: ImageAttention) -> Floats:
        """The prior from all other images, for each visual token of this image, (L, n_visual)."""
        sums = sum(part for digest, part in self._sums.items() if digest != image.digest)
        counts = sum(part for digest, part in self._counts.items() if digest != image.digest)
        assert isinstance(sums, np.ndarray) and isinstance(counts, np.ndarray)  # noqa: S101 - there are two images
        tile, whole = sums / np.maximum(counts, 1.0)
        if not counts[0].any():
            tile = whole
        n_whole = int(image.n_tiles == 1 or image.n_tiles > image.grid[0] * image.grid[1])
        return np.concatenate([np.tile(tile, image.n_tiles - n_whole), np.tile(whole, n_whole)], axis=-1)


def kept_shares(scores: Floats, targets: np.ndarray, count: int) -> Floats:
    """Share of each target's tokens that are among the ``count`` highest scores.

    Args:
        scores: (..., R, n_visual).
        targets: (R, n_visual) bool, at least one True in each row.
        count: number of tokens that are kept.

    Returns:
        (..., R).
    """
    kept = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    hits = np.take_along_axis(np.broadcast_to(targets, scores.shape), kept, axis=-1).sum(-1)
    shares: Floats = hits / targets.sum(-1)
    return shares
