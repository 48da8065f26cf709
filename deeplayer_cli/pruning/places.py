"""Where visual tokens lie in the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Grid = tuple[int, int]
"""Columns and rows of tiles."""


def token_places(grid: Grid, n_tiles: int, n_visual: int) -> Tensor:
    """Centres of the visual tokens of one image, in widths of a token.

    Tokens go row by row within a tile, tiles row by row within the grid. The thumbnail is a level of its own: how its
    larger tokens relate to those of the tiles is for a method to say.

    Args:
        grid: columns and rows of tiles.
        n_tiles: all tiles, the thumbnail included.
        n_visual: all visual tokens.

    Returns:
        (n_visual, 3) float32: x, y, and the level, 0 for the tiles and 1 for the thumbnail.
    """
    columns, rows = grid
    side = math.isqrt(n_visual // n_tiles)
    line = torch.arange(side) + 0.5
    tile = torch.stack((line.repeat(side), line.repeat_interleave(side), torch.zeros(side * side)), dim=-1)
    tiles = [tile + torch.tensor([column * side, row * side, 0.0]) for row in range(rows) for column in range(columns)]
    if n_tiles > rows * columns:
        tiles.append(tile + torch.tensor([0.0, 0.0, 1.0]))
    return torch.cat(tiles)
