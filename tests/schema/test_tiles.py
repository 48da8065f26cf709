"""Where visual tokens lie in an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.pruning import token_places
from deeplayer_cli.schema import TileLayout

SIZES = st.integers(1, 4)


@given(SIZES, SIZES, st.booleans(), SIZES)
def test_cells_are_the_places_that_pruning_uses(columns: int, rows: int, thumbnail: bool, side: int) -> None:
    n_tiles = columns * rows + thumbnail
    layout = TileLayout.from_counts((columns, rows), n_tiles, n_tiles * side**2)
    assert layout == TileLayout(columns, rows, thumbnail, side)
    places = token_places((columns, rows), n_tiles, layout.n_visual).tolist()
    cells = [layout.cell(index) for index in range(layout.n_visual)]
    assert [[column + 0.5, row + 0.5, float(on_thumbnail)] for on_thumbnail, column, row in cells] == places


@pytest.mark.parametrize("index", [-1, 8])
def test_there_is_no_such_token(index: int) -> None:
    with pytest.raises(ValueError, match=f"no visual token {index}: the image has 8"):
        TileLayout(2, 1, False, 2).cell(index)
