"""The places of visual tokens in the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Grid = tuple[int, int]
"""Number of columns and rows of tiles."""


def token_places(grid: Grid, n_tiles: int, n_visual: int) -> Tensor:
    """Centres of the visual tokens of one image, in token widths.

    Tokens are in row order within a tile, and tiles are in row order within the grid. The thumbnail comes last and is a
    level of its own: its coordinates are not comparable with those of the tiles.

    Args:
        grid: columns and rows of tiles.
        n_tiles: number of tiles, the thumbnail included.
        n_visual: number of visual tokens of the image.

    Returns:
        (n_visual, 3) float32: x, y and the level (0: tiles, 1: thumbnail).
    """
    columns, rows = grid
    side = math.isqrt(n_visual // n_tiles)
    line = torch.arange(side) + 0.5
    tile = torch.stack((line.repeat(side), line.repeat_interleave(side), torch.zeros(side * side)), dim=-1)
    tiles = [tile + torch.tensor([column * side, row * side, 0.0]) for row in range(rows) for column in range(columns)]
    if n_tiles > rows * columns:
        tiles.append(tile + torch.tensor([0.0, 0.0, 1.0]))
    return torch.cat(tiles)
