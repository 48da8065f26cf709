"""The places of visual tokens in the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deeplayer_cli.boxes import Box, Resolution

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


def tokens_in_box(places: Tensor, grid: Grid, box: Box, resolution_wh: Resolution) -> Tensor:
    """Which visual tokens have their centre in a box, (n_visual,) bool.

    Args:
        places: (n_visual, 3), from `token_places`.
        grid: columns and rows of tiles.
        box: xyxy in pixels of the image.
        resolution_wh: the image's width and height in pixels.
    """
    *centres, level = places.unbind(-1)
    # A tile's own width in tokens: the thumbnail, or an only tile, reaches from edge to edge.
    side = math.isqrt(len(places) // (grid[0] * grid[1] + int(level.max())))
    x, y = (
        line / (side * torch.where(level == 0, tiles, 1)) * length
        for line, tiles, length in zip(centres, grid, resolution_wh, strict=True)
    )
    left, top, right, bottom = box
    return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
