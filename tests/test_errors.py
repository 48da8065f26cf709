from __future__ import annotations

import pickle

from deeplayer_cli.errors import RowError


def test_a_row_error_comes_back_whole_from_another_process():
    error = pickle.loads(pickle.dumps(RowError("image_missing", "a.jpg does not exist")))
    assert (error.kind, error.message, str(error)) == ("image_missing", "a.jpg does not exist", "a.jpg does not exist")
