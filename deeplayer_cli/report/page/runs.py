"""Reads prediction files as the runs of a page."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli import evaluation
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import difference_to, gather
from deeplayer_cli.evaluation.results import keep_of_record, label_of_record, rows_once, total_cost
from deeplayer_cli.evaluation.score import gold_in_pixels
from deeplayer_cli.schema import in_text, overlap
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sinks import load_record, read_predictions, record_path, refuse_twice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deeplayer_cli.boxes import Box, BoxFormat
    from deeplayer_cli.evaluation import Report
    from deeplayer_cli.evaluation.compare import Difference, MethodRun
    from deeplayer_cli.schema import Id, Prediction
    from deeplayer_cli.sinks import RunRecord


logger = logging.getLogger("deeplayer")

_MOST_TOKENS = 2**20  # of an image

RecordedFile = tuple["Path", "RunRecord | None"]
"""A prediction file, and the record beside it if there is one."""


@dataclass(frozen=True, slots=True)
class PageRun:
    """The rows of one run.

    Attributes:
        label: its name on the page, different for each run.
        method: name of the pruning method; None if it is unknown.
        files: the files that the rows were read from; several if they have the same settings.
        rows: by id, with the gold boxes that count.
        report: the scores of the rows.
        measured: the numbers that a comparison needs; runs that differ only in their keep share its label.
        difference: of Acc@0.5 to the reference, paired by row; None for the reference itself, or if the runs do not
            have the same rows with gold.
        is_reference: whether the other runs are compared with this one.
    """

    label: str
    method: str | None
    files: tuple[Path, ...]
    rows: Mapping[Id, Prediction]
    report: Report
    measured: MethodRun
    difference: Difference | None = None
    is_reference: bool = False


def read_page_runs(
    paths: Sequence[Path], gold: Mapping[Id, Box] | None = None, box_format: BoxFormat | None = None
) -> list[PageRun]:
    """Read prediction files, and folders of them as ``compare --results`` fills them.

    Files whose records have the same settings form one run. Runs are in the order of their files; with a folder, they
    are sorted by method and keep. The run that prunes nothing is the reference, or else the first one.

    Args:
        paths: of the files and folders.
        gold: gold boxes by id, which replace those of the rows.
        box_format: how the gold boxes are written; None for corners in pixels.

    Raises:
        DeeplayerError: a file cannot be read, is given twice or has no rows, or an id comes twice in it.
    """
    groups = _grouped([(path, _record(path)) for path in prediction_files(paths)])
    runs = [_read(label, files, gold, box_format) for label, files in zip(_labels(groups), groups, strict=True)]
    if any(path.is_dir() for path in paths):  # whose files have names that say nothing about the order
        runs.sort(key=lambda run: (run.method != "none", run.measured.label, run.measured.keep or 0.0))
    reference = next((run for run in runs if run.method == "none"), runs[0])
    return [_compared(run, reference) for run in runs]


def prediction_files(paths: Sequence[Path]) -> list[Path]:
    """The prediction files among the paths and in folders among them.

    Raises:
        DeeplayerError: a file is given twice, or a folder has none.
    """
    files = [file for path in paths for file in (evaluation.result_files([path]) if path.is_dir() else [path])]
    refuse_twice(files)
    return files


def _record(path: Path) -> RunRecord | None:
    record = load_record(path)
    try:
        if record is not None:
            label_of_record(record), keep_of_record(record)
    except (KeyError, ValueError) as error:
        name = record_path(path)
        raise DeeplayerError(f"{name} does not say the method and the keep of a run: move it elsewhere") from error
    return record


def _grouped(files: Iterable[RecordedFile]) -> list[tuple[RecordedFile, ...]]:
    """Put files with the same settings together; a file without a record stands alone."""
    groups: dict[object, list[RecordedFile]] = {}
    for path, record in files:
        groups.setdefault(path if record is None else record.fingerprint, []).append((path, record))
    return [tuple(group) for group in groups.values()]


def _labels(groups: Sequence[tuple[RecordedFile, ...]]) -> list[str]:
    """Name each run by its method, and by what tells it from runs with the same name: its keep, its file, its path."""
    firsts = [group[0] for group in groups]
    labels = [_curve(*first) for first in firsts]
    kept = [_kept(*first) for first in firsts]
    for more in (kept, [path.stem for path, _ in firsts], [str(path) for path, _ in firsts]):
        labels = [
            in_text(f"{label}, {added}") if labels.count(label) > 1 and added not in label.split(", ") else label
            for label, added in zip(labels, more, strict=True)
        ]
    return labels


def _curve(path: Path, record: RunRecord | None) -> str:
    """The name that runs share which differ only in their keep."""
    if record is None:
        return "stdin" if path == Path("-") else in_text(path.stem)
    return label_of_record(record)


def _kept(path: Path, record: RunRecord | None) -> str:
    if record is None:
        return path.stem
    if tokens := record.settings.get("keep_tokens"):
        return f"{tokens} tokens"
    return f"keep {keep_of_record(record):.4g}"


def _read(
    label: str, files: tuple[RecordedFile, ...], gold: Mapping[Id, Box] | None, box_format: BoxFormat | None
) -> PageRun:
    paths = [path for path, _ in files]
    found = read_predictions(paths[0]) if len(paths) == 1 else rows_once(paths)
    rows = [_judged(row, gold, box_format) for row in found]
    odd = {place for place, row in enumerate(rows) if row.kept is not None and not _fits(row)}
    if odd:
        logger.warning(
            "%s: kept tokens are not shown of %s whose tiles do not have them", paths[0], counted(len(odd), "row")
        )
        rows = [replace(row, kept=None) if place in odd else row for place, row in enumerate(rows)]
    if not rows:
        raise DeeplayerError(f"{'stdin' if str(paths[0]) == '-' else paths[0]} has no rows: there is nothing to show")
    report = evaluation.score(
        rows, gold=None if gold is None else _joined(gold, rows)
    )  # refuses an id that comes twice
    records = [record for _, record in files if record is not None]
    measured = gather(rows, label=_curve(*files[0]), keep=keep_of_record(records[0]) if records else None)
    measured = replace(measured, cost=total_cost(records) if records else None)
    return PageRun(label, rows[0].method, tuple(paths), {row.id: row for row in rows}, report, measured)


def _judged(row: Prediction, gold: Mapping[Id, Box] | None, box_format: BoxFormat | None) -> Prediction:
    """The row with the gold box that counts, in pixels, and the IoU with it."""
    box = gold_in_pixels(row.gold if gold is None else gold.get(row.id), box_format, row)
    return replace(row, gold=box, iou=overlap(row.box, box))


def _joined(gold: Mapping[Id, Box], rows: Iterable[Prediction]) -> dict[Id, Box]:
    """The given gold boxes, with those of the rows in pixels."""
    return {**gold, **{row.id: row.gold for row in rows if row.gold is not None}}


def _fits(row: Prediction) -> bool:
    """Whether the kept tokens of a row are tokens of its image."""
    n_visual = 0 if row.tiles is None else row.tiles.n_visual
    return n_visual <= _MOST_TOKENS and all(index < n_visual for index in row.kept or ())


def _compared(run: PageRun, reference: PageRun) -> PageRun:
    """The run with its difference to the reference, if both have the same rows with gold."""
    if run is reference:
        return replace(run, is_reference=True)
    ids = set(reference.measured.ids)
    if not ids or set(run.measured.ids) != ids:
        return run
    return replace(run, difference=difference_to(reference.measured, run.measured))
