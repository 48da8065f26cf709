"""Where the visual tokens of a row come from in its image."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

from deeplayer_cli.schema.values import show


class TokenCell(NamedTuple):
    """The place of a visual token.

    Attributes:
        on_thumbnail: false: the column and row are of the grid of all tiles; true: of the thumbnail.
        column: from 0, from the left.
        row: from 0, from the top.
    """

    on_thumbnail: bool
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class TileLayout:
    """How the visual tokens of an image lie in it.

    The image is stretched over ``columns`` x ``rows`` tiles. Each tile has ``side`` x ``side`` tokens, in row order;
    the tiles are in row order too. The thumbnail, which shows the whole image again, comes last.

    Attributes:
        columns: of tiles.
        rows: of tiles.
        thumbnail: whether a thumbnail follows the tiles.
        side: number of visual tokens along each side of a tile.
    """

    columns: int
    rows: int
    thumbnail: bool
    side: int

    @classmethod
    def from_counts(cls, grid: tuple[int, int], n_tiles: int, n_visual: int) -> TileLayout:
        """Make the layout of ``n_visual`` tokens in ``n_tiles`` tiles, the thumbnail included.

        Args:
            grid: columns and rows of tiles.
            n_tiles: number of tiles.
            n_visual: number of visual tokens of the image.
        """
        columns, rows = grid
        return cls(columns, rows, n_tiles > columns * rows, math.isqrt(n_visual // n_tiles))

    @classmethod
    def from_json(cls, value: object) -> TileLayout:
        """Read the field ``tiles`` of a row.

        Raises:
            ValueError: the value is not a layout.
        """
        names = [item.name for item in fields(cls)]
        if isinstance(value, dict) and value.keys() == set(names) and isinstance(value["thumbnail"], bool):
            sizes = [value[name] for name in names if name != "thumbnail"]
            if all(isinstance(size, int) and not isinstance(size, bool) and 0 < size < 2**16 for size in sizes):
                return cls(**value)
        raise ValueError(f"tiles must be an object with {', '.join(names)}, not {show(value)}")

    @property
    def n_visual(self) -> int:
        """Number of visual tokens."""
        return (self.columns * self.rows + self.thumbnail) * self.side**2

    def cell(self, index: int) -> TokenCell:
        """Return the place of a visual token.

        Raises:
            ValueError: the image has no such token.
        """
        if not 0 <= index < self.n_visual:
            raise ValueError(f"there is no visual token {index}: the image has {self.n_visual}")
        tile, within = divmod(index, self.side**2)
        row, column = divmod(within, self.side)
        if tile == self.columns * self.rows:
            return TokenCell(True, column, row)
        tile_row, tile_column = divmod(tile, self.columns)
        return TokenCell(False, tile_column * self.side + column, tile_row * self.side + row)
