"""Positional bias of attention: rank correlations with the place, and what they are by chance.

The null hypothesis is that attention does not depend on the place. Under it, a map of attention is as likely as its
mirror images. So mirroring the map of every image at random gives what the correlations with row, column and place in
the prompt are by chance, exactly, and how much images agree. Mirroring does not change the distance from the centre;
for that correlation, maps are also shifted at random, around the edges. All this keeps what neighbouring tokens have in
common; permuting single tokens would not, and the bands would be too narrow. All maps of an image move together: the
images are the clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Booleans = npt.NDArray[np.bool_]

SIGNALS = ("row", "column", "raster", "centre")
"""What attention is correlated with: the row, the column, the place in the prompt, the distance from the centre (where
the image is half as wide and half as high as it is, so that all edges are equally far)."""

VIEWS = ("tile", "image")
"""The places: within each tile, the thumbnail included; or within the image, over its grid of tiles."""

LEVEL = 0.05


def rank_maps(attention: Floats, left_out: Booleans) -> Floats:
    """Ranks of attention as vectors of mean 0 and length 1, so that a product of two is Spearman's correlation.

    Args:
        attention: (..., n) of n places.
        left_out: (..., n), broadcast: places without a rank. They get 0, the mean.

    Returns:
        (..., n); 0 everywhere where all attention is equal.
    """
    n = attention.shape[-1]
    left_out = np.broadcast_to(left_out, attention.shape).reshape(-1, n)
    found = np.zeros((len(left_out), n))
    for values, skipped, ranks in zip(attention.reshape(-1, n), left_out, found, strict=True):
        kept = values[~skipped]
        if len(kept):
            _, order, counts = np.unique(kept, return_inverse=True, return_counts=True)
            ranked = (np.cumsum(counts) - (counts - 1) / 2)[order]  # equal values share the mean of their ranks
            ranks[~skipped] = ranked - ranked.mean()
    return _to_length_one(found).reshape(attention.shape)


@dataclass(frozen=True)
class ImageRanks:
    """The ranks of an image's attention in L layers, as means over the prompts about it.

    Attributes:
        tile: (L, side, side), the mean over the image's tiles; each map has length 1 before the mean.
        image: (L, rows, columns) of tokens over the grid of tiles.
        order: (rows, columns), the number of each token of ``image`` in the prompt.
        cluster: equal for copies of an image.
    """

    tile: Floats
    image: Floats
    order: Integers
    cluster: int


class PlaceCorrelation(NamedTuple):
    """The correlation of a layer's attention with the place.

    Attributes:
        view: one of `VIEWS`.
        signal: one of `SIGNALS`.
        rho: Spearman's correlation, as a mean over images. Places that are left out have the mean rank, so it is nearer
            to 0 than a correlation over the other places alone, as the band is.
        low, high: the band that holds 95% of the correlations by chance.
    """

    view: str
    signal: str
    rho: float
    low: float
    high: float


@dataclass(frozen=True)
class PlaceDependence:
    """How a layer's attention depends on the place, and what is to be expected by chance.

    Attributes:
        correlations: of every view and signal.
        agreement: mean correlation of two images' maps within a tile, relative to an image's with itself: 1 if all
            images have the same map. None with one image.
        agreement_high: the bound that 95% of the agreements by chance stay below.
        p: the chance of any correlation or agreement as unusual as the most unusual one.
    """

    correlations: tuple[PlaceCorrelation, ...]
    agreement: float | None
    agreement_high: float | None
    p: float


class BiasTest:
    """Collects the rank maps of images, one at a time, and tests them for a dependence on the place.

    Args:
        draws: number of random mirrorings and shifts of every image; p-values are multiples of ``1 / (draws + 1)``.
        seed: of the draws.
    """

    def __init__(self, draws: int = 1000, seed: int = 0) -> None:
        self._draws, self._seed = draws, seed
        self._observed: Floats | float = 0.0  # (views, signals, L)
        self._by_chance: Floats | float = 0.0  # (draws, views, signals, L)
        self._sum: Floats | float = 0.0  # (L, side, side)
        self._mirrored_sum: Floats | float = 0.0  # (draws, L, side, side)
        self._own: Floats | float = 0.0  # (L,)
        self.n_images = 0

    def add(self, ranks: ImageRanks) -> None:
        """Add an image. Copies of an image move alike."""
        random = np.random.default_rng([self._seed, ranks.cluster])
        shift, mirror = random.random((self._draws, 2)), random.integers(4, size=self._draws)
        side = ranks.tile.shape[-1]
        views = ((ranks.tile, np.arange(side * side).reshape(side, side)), (ranks.image, ranks.order))
        tables = [_all_shifts(maps, order) for maps, order in views]  # (4, signals, L, H, W)
        self._observed += np.stack([table[0, :, :, 0, 0] for table in tables])
        drawn = []
        for table in tables:
            down, right = (shift * table.shape[-2:]).astype(np.int64).T
            mirrored, moved = table[mirror, :-1, :, 0, 0], table[mirror, -1:, :, down, right]
            drawn.append(np.concatenate([mirrored, moved], axis=1))  # (draws, signals, L)
        self._by_chance += np.stack(drawn, axis=1)
        self._sum += ranks.tile
        self._mirrored_sum += _mirrored(ranks.tile)[mirror]
        self._own += (ranks.tile**2).sum((1, 2))
        self.n_images += 1

    def results(self) -> list[PlaceDependence]:
        """The test of every layer; at least one image must have been added."""
        n_layers = np.shape(self._own)[0]
        observed, by_chance = (np.asarray(part) / self.n_images for part in (self._observed, self._by_chance))
        observed, by_chance = observed.reshape(-1, n_layers), by_chance.reshape(self._draws, -1, n_layers)
        low, high = np.quantile(by_chance, [LEVEL / 2, 1 - LEVEL / 2], axis=0)  # (views x signals, L)
        seen, unusual = np.abs(observed), np.abs(by_chance)
        agreement = bound = None
        if self.n_images > 1:
            agreement, agreement_by_chance = self._agreement(self._sum), self._agreement(self._mirrored_sum)
            bound = np.quantile(agreement_by_chance, 1 - LEVEL, axis=0)
            seen = np.concatenate([seen, agreement[None]])
            unusual = np.concatenate([unusual, agreement_by_chance[:, None]], axis=1)
        found = []
        for layer in range(n_layers):
            bands = zip(product(VIEWS, SIGNALS), observed[:, layer], low[:, layer], high[:, layer], strict=True)
            found.append(
                PlaceDependence(
                    tuple(PlaceCorrelation(*names, *map(float, band)) for names, *band in bands),
                    None if agreement is None else float(agreement[layer]),
                    None if bound is None else float(bound[layer]),
                    _most_unusual(seen[:, layer], unusual[..., layer]),
                )
            )
        return found

    def _agreement(self, total: Floats | float) -> Floats:
        """Mean correlation of the maps of two images, (..., L), from the sum of all maps (..., L, side, side)."""
        all_pairs = (np.asarray(total) ** 2).sum((-2, -1)) - self._own
        same = (self.n_images - 1) * np.asarray(self._own)
        return np.divide(all_pairs, same, out=np.zeros_like(all_pairs), where=same > 0)


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979, Scandinavian Journal of Statistics 6, 65-70)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    factors = np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p)[order] * factors))
    return [float(one) for one in adjusted]


def _most_unusual(seen: Floats, by_chance: Floats) -> float:
    """The chance of a statistic as far above its mean by chance, in standard deviations, as the farthest one seen.

    Args:
        seen: (statistics,).
        by_chance: (draws, statistics), the same by chance. One that never changes is left out.
    """
    mean, spread = by_chance.mean(0), by_chance.std(0)
    changes = spread > 1e-12
    if not changes.any():
        return 1.0
    farthest, most = (((part - mean) / np.where(changes, spread, np.inf)).max(-1) for part in (by_chance, seen))
    # The tolerance counts draws that equal what was seen: with few images, mirroring gives the same map often.
    return (1 + int((farthest >= most - 1e-9).sum())) / (len(by_chance) + 1)


def _all_shifts(maps: Floats, order: Integers) -> Floats:
    """Correlations with the signals for every shift and mirroring of the maps.

    Args:
        maps: (L, H, W) rank maps.
        order: (H, W), the number of each token in the prompt.

    Returns:
        (mirrorings, signals, L, H, W), by shift down and right. The first mirroring and shift change nothing.
    """
    height, width = order.shape
    spectrum = _signal_spectra(height, width, order.tobytes())
    product = np.conj(spectrum)[:, :, None] * np.fft.rfft2(maps)
    return np.fft.irfft2(product, s=(height, width))


@cache
def _signal_spectra(height: int, width: int, order: bytes) -> npt.NDArray[np.complex128]:
    """Fourier transform of every mirroring of every signal, (4, signals, H, W // 2 + 1)."""
    y, x = np.mgrid[:height, :width]
    raster = np.frombuffer(order, dtype=np.int64).reshape(height, width)
    centre = np.hypot((y - (height - 1) / 2) / height, (x - (width - 1) / 2) / width)
    nothing = np.zeros(height * width, dtype=np.bool_)
    flat = np.stack([part.reshape(-1).astype(np.float64) for part in (y, x, raster, centre)])
    ranks = rank_maps(flat, nothing).reshape(-1, height, width)
    spectra: npt.NDArray[np.complex128] = np.fft.rfft2(_mirrored(ranks))
    return spectra


def _mirrored(maps: Floats) -> Floats:
    """Maps (..., H, W) as they are, upside down, the other way round, and both: (4, ..., H, W)."""
    return np.stack([maps, maps[..., ::-1, :], maps[..., ::-1], maps[..., ::-1, ::-1]])


def _to_length_one(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
