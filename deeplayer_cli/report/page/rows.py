"""The rows of all runs, joined by id: the data behind the gallery of a page."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.score import NO_VALUE, group_name, no_such_field, own_fields
from deeplayer_cli.schema.values import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.report.page.runs import PageRun
    from deeplayer_cli.schema import Id, Prediction, TileLayout

MOST_VALUES = 100
"""The most values that a field may have to be a filter and a table."""

_FEW_VALUES = 12  # a field with more values becomes a filter only on request
_FIRST_FIELDS = ("dataset", "split")
_SAME = ("expression", "gold", "image_id", "width", "height")
"""What the rows of one id must share, as far as they have it: their boxes lie in one picture."""


def joined_rows(runs: Sequence[PageRun]) -> dict[Id, list[Prediction | None]]:
    """The rows of each id, one per run: first the ids of the first run, then those that only later runs have.

    Raises:
        DeeplayerError: two runs have different rows under one id.
    """
    ids = dict.fromkeys(row_id for run in runs for row_id in run.rows)
    joined = {row_id: [run.rows.get(row_id) for run in runs] for row_id in ids}
    for rows in joined.values():
        _refuse_unlike(runs, rows)
    return joined


def first_of(rows: Sequence[Prediction | None]) -> Prediction:
    """The row of the first run that has one."""
    return next(row for row in rows if row is not None)


def _refuse_unlike(runs: Sequence[PageRun], rows: Sequence[Prediction | None]) -> None:
    for name in _SAME:
        known = [(run.label, getattr(row, name)) for run, row in zip(runs, rows, strict=True) if row is not None]
        known = [(label, value) for label, value in known if value is not None]
        for label, value in known[1:]:
            if value != known[0][1]:
                raise DeeplayerError(
                    f"{known[0][0]} and {label} are not runs on the same rows: {name} of id {first_of(rows).id!r} is "
                    f"{show(known[0][1])} in the first and {show(value)} in the second; make one page for each"
                )


def filter_fields(runs: Sequence[PageRun], wanted: Sequence[str] | None) -> dict[str, list[str]]:
    """The fields that rows are filtered and tabulated by, each with its values, sorted.

    Args:
        runs: of the page.
        wanted: fields of the row or of its ``meta``; None for those of ``meta`` that half of the rows have, with 2
            to 12 values.

    Raises:
        DeeplayerError: no row has a wanted field, or it has too many values.
    """
    rows = [row for run in runs for row in run.rows.values()]
    if wanted is not None:
        return {name: _wanted_values(rows, name) for name in dict.fromkeys(wanted)}
    times = Counter(name for row in rows for name in row.meta)
    common = [name for name, n in times.items() if 2 * n >= len(rows)]
    names = [
        *(name for name in _FIRST_FIELDS if name in common),
        *(name for name in common if name not in _FIRST_FIELDS),
    ]
    return {name: values for name in names if 2 <= len(values := _values(rows, name, _FEW_VALUES)) <= _FEW_VALUES}


def _wanted_values(rows: Sequence[Prediction], name: str) -> list[str]:
    values = _values(rows, name, MOST_VALUES)
    if values == [NO_VALUE]:
        raise DeeplayerError(no_such_field(name, dict.fromkeys(known for row in rows for known in own_fields(row))))
    if len(values) > MOST_VALUES:
        raise DeeplayerError(f"--by {name} has more than {MOST_VALUES} values: choose a field that groups the rows")
    return values


def _values(rows: Sequence[Prediction], name: str, most: int) -> list[str]:
    """The values of a field as text, sorted; it stops at one more than ``most``."""
    values: set[str] = set()
    for row in rows:
        values.add(group_name(row, name))
        if len(values) > most:
            break
    return sorted(values)


def row_data(
    rows: Sequence[Prediction | None], fields: Mapping[str, Sequence[str]], picture: int | None
) -> dict[str, object]:
    """One joined row as JSON values.

    Args:
        rows: of the runs, in their order; None where a run has no such row.
        fields: the filters with their values; the row names its value by place.
        picture: place of its picture among the pictures of the page.
    """
    first = first_of(rows)
    gold, expression = (
        next((value for row in rows if row is not None and (value := getattr(row, name)) is not None), None)
        for name in ("gold", "expression")
    )
    return {
        "id": str(first.id),
        "source": first.source,
        "expression": expression,
        "picture": picture,
        "gold": _rounded(gold),
        "groups": [values.index(group_name(first, name)) for name, values in fields.items()],
        "answers": [None if row is None else _answer(row) for row in rows],
    }


def _answer(row: Prediction) -> dict[str, object]:
    """What one run says about a row; values that are None are left out."""
    found: dict[str, Any] = {
        "status": row.status,
        "iou": None if row.iou is None else round(row.iou, 4),
        "score": None if row.score is None else round(row.score, 4),
        "box": _rounded(row.box),
        "others": [_rounded(box) for box in row.boxes[1:]] or None,
        "text": row.answer,
        "kept": None if row.kept is None or row.tiles is None else _kept(row.kept, row.tiles),
        "tokens": None if row.kept_tokens is None else [row.kept_tokens, row.visual_tokens],
        "error": None if row.error is None else ": ".join(map(str, row.error.values())),
    }
    return {name: value for name, value in found.items() if value is not None}


def _rounded(box: Box | None) -> list[float] | None:
    return None if box is None else [round(number, 2) for number in box]


def _kept(kept: Sequence[int], tiles: TileLayout) -> dict[str, object]:
    """The kept tokens as a mask: bit ``i % 8`` of byte ``i // 8`` is set if token i was kept."""
    mask = bytearray(tiles.n_visual // 8 + 1)
    for index in kept:
        mask[index // 8] |= 1 << index % 8
    return {"tiles": [tiles.columns, tiles.rows, tiles.thumbnail, tiles.side], "mask": b64encode(mask).decode()}
