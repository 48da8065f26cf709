"""Checks whether a prediction file still agrees with the record of its run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from deeplayer_cli.sinks.descriptors import named_descriptor
from deeplayer_cli.sinks.reading import read_predictions
from deeplayer_cli.sinks.run_record import load_record, record_path, status_counts

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.schema import Status


def disagreements(path: Path) -> list[str]:
    """List the disagreements between a prediction file and the record beside it, one sentence each.

    The list is empty if there is no record, as for stdin.

    Raises:
        DeeplayerError: the file or its record cannot be read.
    """
    record = load_record(path) if named_descriptor(path, dash=0) is None else None
    if record is None:
        return []
    statuses: Counter[Status] = Counter()
    methods: Counter[str | None] = Counter()
    for row in read_predictions(path):
        statuses[row.status] += 1
        methods[row.method] += 1
    name = record_path(path).name
    counts = status_counts(statuses)
    found = []
    if record.counts is None:
        found.append(f"{path} is not finished: its run was stopped; continue it with --resume")
    elif record.counts != counts:
        found.append(f"{path} changed after its run: {name} says {_show(record.counts)}; the file has {_show(counts)}")
    elif record.part:
        options = " and ".join(f"--{name} {value}" for name, value in record.part.items())
        found.append(f"{path} answers only a part of its input: its last run had {options}")
    wanted = record.settings.get("method")
    if other := sorted(str(method) for method in methods if method != wanted):
        found.append(f"{path} has rows of method {', '.join(other)}, but {name} names method {wanted}")
    return found


def _show(counts: object) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) if isinstance(counts, dict) else "?"
