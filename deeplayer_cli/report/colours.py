"""Colours that people with any colour vision can distinguish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

ORANGE, SKY_BLUE, GREEN, YELLOW, BLUE, VERMILLION, PURPLE, BLACK = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000"),
)
"""The palette of Okabe and Ito (2008), "Color Universal Design"."""

_VIRIDIS = np.array(
    [
        *((68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140)),
        *((40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37)),
    ]
)
"""Nine even steps of matplotlib's viridis."""


def heat_colours(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the colours (..., 3) uint8 of values (...) from 0 to 1, from dark violet to yellow."""
    steps = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(values, steps, _VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
