"""The rows of a comparison on disk: a folder with one prediction file for each line."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from dataclasses import asdict, fields, replace
from functools import reduce
from typing import TYPE_CHECKING

from deeplayer_cli.cost.model import Cost
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import ASKED, LABELLED, asked_of, gather, label_for
from deeplayer_cli.schema.values import counted, show
from deeplayer_cli.sinks.reading import read_predictions
from deeplayer_cli.sinks.run_record import load_record, record_path, status_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.evaluation.compare import Asked, MethodRun
    from deeplayer_cli.schema import Id, Prediction, Status
    from deeplayer_cli.sinks import RunRecord

logger = logging.getLogger("deeplayer")

_HASH = 8  # hexadecimal digits

_KEEP = ("keep", "keep_tokens", "keep_mass", "keep_least", "keep_most", "fallback")
_COMPARED = ("method", "method_code", *_KEEP, "layer", "query", "positions", "prior", "max_tiles")
"""The settings that may differ between the lines of a comparison."""


def result_path(folder: Path, record: RunRecord) -> Path:
    """The prediction file of a run in ``folder``: ``METHOD-keepSHARE-layerK-HASH.jsonl``.

    A later run with the same settings finds it by its name. What the settings leave to the method is left out.
    """
    settings = record.settings
    parts = [str(settings["method"])]
    if settings.get("keep_tokens") is not None:
        parts.append(f"keep{settings['keep_tokens']}tokens")
    elif settings.get("keep_mass") is not None:
        parts.append(f"auto{settings['keep_mass']:.4g}")
    elif settings["method"] != "none" and settings.get("keep") is not None:
        parts.append(f"keep{settings['keep']:.4g}")
    if settings.get("layer") is not None:
        parts.append(f"layer{settings['layer']}")
    name = re.sub(r"[^\w.-]", "_", "-".join(parts))
    return folder / f"{name}-{record.fingerprint[:_HASH]}.jsonl"


def with_outcome(record: RunRecord, statuses: Counter[Status], cost: Cost | None) -> RunRecord:
    """The record of a finished run, with the number of rows by status and their cost."""
    circumstances = {**record.circumstances, "cost": None if cost is None else asdict(cost)}
    return replace(record, circumstances=circumstances, counts=status_counts(statuses))


def result_files(folders: Sequence[Path]) -> list[Path]:
    """The prediction files in the folders.

    Raises:
        DeeplayerError: a folder is not there, or has no prediction file.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise DeeplayerError(f"{folder} is no folder: name a folder of compare --results or ground -o")
        files = sorted(folder.glob("*.jsonl"))
        if not files:
            raise DeeplayerError(f"{folder} has no prediction files: name a folder of compare --results or ground -o")
        found += files
    return found


def read_runs(folders: Sequence[Path], split_of: Callable[[Prediction], str] | None = None) -> list[MethodRun]:
    """Read the runs in the folders, without the model.

    Prediction files with the same settings form one run; if several of them answer an id, the answer in the first file
    counts. Runs that prune nothing come first, then runs by name and keep.

    Args:
        folders: at least one.
        split_of: names the split of a row.

    Raises:
        DeeplayerError: a folder has no prediction file, a file has no record, or the settings of two files differ in
            more than their methods.
    """
    records = {path: _record(path) for path in result_files(folders)}
    _refuse_strangers(records)
    _warn_of_equal_names(records)
    same: defaultdict[str, list[Path]] = defaultdict(list)
    for path, record in records.items():
        same[record.fingerprint].append(path)
    runs = [_read([(path, records[path]) for path in alike], split_of) for alike in same.values()]
    return sorted(runs, key=lambda run: (run.layer is not None, run.label, run.keep or 0.0))


def _record(path: Path) -> RunRecord:
    record = load_record(path)
    if record is None:
        raise DeeplayerError(
            f"{path} cannot be compared: {record_path(path).name} with its settings is missing; move the file elsewhere"
        )
    return record


def _refuse_strangers(records: Mapping[Path, RunRecord]) -> None:
    first, *others = records
    for other in others:
        ours, theirs = records[first].settings, records[other].settings
        for name in sorted((ours.keys() | theirs.keys()) - set(_COMPARED)):
            if ours.get(name) != theirs.get(name):
                raise DeeplayerError(
                    f"{first} and {other} cannot be compared: {name} is {show(ours.get(name))} in the first and "
                    f"{show(theirs.get(name))} in the second; compare runs that differ only in their method, "
                    "and keep others in a folder of their own"
                )


def _warn_of_equal_names(records: Mapping[Path, RunRecord]) -> None:
    """Warn of lines that only the code or the prior of their method tells apart: their names are the same."""
    firsts: dict[str, Path] = {}
    for path, record in records.items():
        others = {name: value for name, value in record.settings.items() if name not in ("method_code", "prior")}
        first = firsts.setdefault(replace(record, settings=others).fingerprint, path)
        if record.settings.get("method_code") != records[first].settings.get("method_code"):
            logger.warning(
                "%s and %s are of one method, and its code changed between them: remove what is out of date",
                first,
                path,
            )
        elif record.settings.get("prior") != records[first].settings.get("prior"):
            logger.warning("%s and %s differ in their prior only, so their lines have the same name", first, path)


def label_of_record(record: RunRecord) -> str:
    """The name of the line of a run with this record, see `label_for`."""
    settings = record.settings
    return label_for(settings["method"], **{name: settings[name] for name in LABELLED if name in settings})


def keep_of_record(record: RunRecord) -> float | None:
    """The ``--keep`` of a run; None if an absolute number of tokens or a share of the attention was set."""
    settings = record.settings
    is_share = settings.get("keep_tokens") is None and settings.get("keep_mass") is None
    return float(str(settings["keep"])) if is_share else None


def total_cost(records: Iterable[RunRecord]) -> Cost | None:
    """The cost of all rows of some runs; None if a record does not hold it, as those of `ground`."""
    return reduce(_plus, map(_cost, records))


def _read(files: Sequence[tuple[Path, RunRecord]], split_of: Callable[[Prediction], str] | None) -> MethodRun:
    record = files[0][1]
    rows = rows_once([path for path, _ in files])
    tokens = record.settings.get("keep_tokens")
    label = label_of_record(record) + ("" if tokens is None else f"@keep-tokens={tokens}")
    run = gather(rows, label=label, keep=keep_of_record(record), split_of=split_of)
    return replace(run, cost=total_cost(record for _, record in files))


def _cost(record: RunRecord) -> Cost | None:
    found = record.circumstances.get("cost")
    return Cost(**found) if isinstance(found, dict) and found.keys() == {part.name for part in fields(Cost)} else None


def _plus(one: Cost | None, other: Cost | None) -> Cost | None:
    return None if one is None or other is None else one.plus(other)


def rows_once(paths: Sequence[Path]) -> Iterator[Prediction]:
    """The rows of files with the same settings, each id once; logs a warning if their answers differ.

    Raises:
        DeeplayerError: a file cannot be read, or two rows of one id have different expressions, gold boxes or images.
    """
    found: dict[Id, tuple[Path, Asked, str | None]] = {}
    n_unlike = 0
    for path in paths:
        for row in read_predictions(path):
            if row.id not in found:
                found[row.id] = path, asked_of(row), row.answer
                yield row
                continue
            first, asked, answer = found[row.id]
            for name, ours, theirs in zip(ASKED, asked, asked_of(row), strict=True):
                if ours != theirs and not (name == "image_id" and None in (ours, theirs)):
                    raise DeeplayerError(
                        f"{first} and {path} have different rows of id {row.id!r}: {show(ours)} and {show(theirs)}; "
                        "use one of the files"
                    )
            n_unlike += row.answer != answer
    if n_unlike:
        logger.warning(
            "%s with different answers in %s: the first answer counts",
            *(counted(n_unlike, "row"), " and ".join(map(str, paths))),
        )
