"""Puts the shards of a run together."""

from __future__ import annotations

import heapq
import re
from array import array
from collections import Counter
from contextlib import nullcontext
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.row_ids import id_hash, question_hash, repeated
from deeplayer_cli.schema.values import counted, show
from deeplayer_cli.sinks.descriptors import named_descriptor
from deeplayer_cli.sinks.opening import refuse_twice
from deeplayer_cli.sinks.output_file import replacing
from deeplayer_cli.sinks.reading import read_lines
from deeplayer_cli.sinks.run_record import RunRecord, load_record, record_path, status_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.schema import BadRequest, Id, Prediction, Request, Status

    _Place = tuple[tuple[int, str], ...]  # sorts rows in the order of their source

_LINE = re.compile(r"(.*):(\d+)", re.DOTALL)
_SHOWN = 5  # missing shards in a sentence
_USE_LIKE = "give --like SOURCE, which names the requests in their order"


def merge_parts(
    parts: Sequence[Path], output: Path, requests: Iterable[Request | BadRequest] | None = None
) -> RunRecord:
    """Write the rows of all parts of a run into one file, in input order, with the record of the whole beside it.

    Lines are copied as they are. This takes 8 bytes of memory per row.

    Args:
        parts: prediction files with their records.
        output: the file to write; with ``-``, a pipe or a device, no record is written.
        requests: all requests, in input order; None takes the order from the places that the rows name.

    Returns:
        The record of the whole.

    Raises:
        DeeplayerError: a part is named twice, has no record, is not finished or was changed; parts are of different
            runs; a shard or a row is missing, or comes twice; or the order cannot be told. Nothing is written then.
    """
    refuse_twice(parts)
    records = {part: _finished_record(part) for part in parts}
    _refuse_other_runs(records, same_source=requests is None)
    _refuse_missing_shards([(part, records[part]) for part in parts])
    ids = _unique_ids(records)
    lines = _by_place(records) if requests is None else _by_request(parts, requests, ids)
    record = _record_of_whole(records)
    is_file = named_descriptor(output, dash=1) is None and (output.is_file() or not output.exists())
    with record.saving(output) if is_file else nullcontext(), replacing(output) as partial, partial.open("wb") as file:
        file.writelines(line.rstrip(b"\n") + b"\n" for line in lines)
    return record


def _finished_record(part: Path) -> RunRecord:
    record = load_record(part)
    if record is None:
        raise DeeplayerError(
            f"{part} cannot be merged without {record_path(part).name}, which `deeplayer ground -o` writes beside it"
        )
    if record.counts is None:
        raise DeeplayerError(f"{part} is not finished: continue its run with --resume")
    if "limit" in record.part:
        raise DeeplayerError(
            f"{part} lacks rows of its shard, as its run had --limit {record.part['limit']}: continue it with "
            "--resume, without --limit"
        )
    return record


def _refuse_other_runs(records: Mapping[Path, RunRecord], *, same_source: bool) -> None:
    first, wanted = next(iter(records.items()))
    for part, record in records.items():
        kinds = [(record.settings, wanted.settings)]
        if same_source:
            kinds.append((_inputs(record), _inputs(wanted)))
        differences = [
            f"{name} is {show(here.get(name), None)}, and in {first} {show(there.get(name), None)}"
            for here, there in kinds
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        if differences:
            way_out = f"; if the rows are the same, {_USE_LIKE}" if record.settings == wanted.settings else ""
            raise DeeplayerError(f"{part} is a part of another run: {'; '.join(differences)}{way_out}")


def _inputs(record: RunRecord) -> dict[str, object]:
    """Return what a run read, as its command named it."""
    return {name: record.circumstances.get(name) for name in ("source", "expressions")}


def _refuse_missing_shards(parts: Sequence[tuple[Path, RunRecord]]) -> None:
    """Refuse parts that are not all shards of a whole, each once; parts that are no shards pass."""
    named: dict[str, Path] = {}
    for part, record in parts:
        shard = str(record.part.get("shard", ""))
        if shard and shard in named:
            raise DeeplayerError(f"{named[shard]} and {part} are both shard {shard}: leave one out")
        named.setdefault(shard, part)
    counts: dict[str, Path] = {}
    for shard, part in named.items():
        counts.setdefault(shard.partition("/")[2], part)
    if len(counts) > 1:
        (one, first), (other, second) = list(counts.items())[:2]
        kinds = [f"one of {count} shards" if count else "no shard" for count in (one, other)]
        raise DeeplayerError(f"{first} is {kinds[0]}, but {second} is {kinds[1]}: merge the shards of one run")
    count = next(iter(counts))
    shards = (f"{index}/{count}" for index in range(int(count or 0)))
    missing = list(islice((shard for shard in shards if shard not in named), _SHOWN + 1))
    if missing:
        more = " and more" if len(missing) > _SHOWN else ""
        raise DeeplayerError(f"missing: shard {', '.join(missing[:_SHOWN])}{more}; name all {count} files")


def _unique_ids(records: Mapping[Path, RunRecord]) -> np.ndarray:
    """Return the sorted hashes of all ids; refuse ids that come twice, and parts that their records do not describe."""
    hashes = array("Q")
    for part, record in records.items():
        statuses: Counter[Status] = Counter()
        for _, row in read_lines(part):
            hashes.append(id_hash(row.id))
            statuses[row.status] += 1
        counts = status_counts(statuses)
        if counts != record.counts:
            raise DeeplayerError(
                f"{part} was changed after its run: it has {counted(counts['rows'], 'row')}, and its record says "
                f"{show(record.counts)}"
            )
    ids = np.sort(np.array(hashes, np.uint64))
    if suspects := repeated(ids):
        first: dict[Id, Path] = {}
        for part in records:
            for _, row in read_lines(part):
                if id_hash(row.id) not in suspects:
                    continue
                if row.id in first:
                    raise DeeplayerError(f"id {row.id!r} comes twice, in {first[row.id]} and {part}")
                first[row.id] = part
    return ids


def _by_place(records: Mapping[Path, RunRecord]) -> Iterator[bytes]:
    """Yield the lines of all parts in the order of the places that they name."""
    sources = next(iter(records.values())).circumstances.get("source")
    if len(records) > 1 and not (isinstance(sources, list) and len(sources) == 1):
        raise DeeplayerError(f"the order of the rows of several sources cannot be told: {_USE_LIKE}")
    return (line for _, line in heapq.merge(*map(_placed, records), key=itemgetter(0)))


def _placed(part: Path) -> Iterator[tuple[_Place, bytes]]:
    last: _Place = ()
    for line, row in read_lines(part):
        place = _place(row)
        if place < last:
            raise DeeplayerError(f"the rows of {part} are not in the order of their places ({row.source}): {_USE_LIKE}")
        yield place, line
        last = place


def _place(row: Prediction) -> _Place:
    """Return a row's file and line; or for images of a folder their path, files before folders as a walk has them."""
    if row.source is None:
        raise DeeplayerError(f"the row with id {row.id!r} does not say where it came from: {_USE_LIKE}")
    if found := _LINE.fullmatch(row.source):
        return (0, found[1]), (int(found[2]), "")
    *folders, name = (row.image or row.source).split("/")
    return *((1, folder) for folder in folders), (0, name)


def _by_request(parts: Sequence[Path], requests: Iterable[Request | BadRequest], ids: np.ndarray) -> Iterator[bytes]:
    """Yield the lines in the order of the requests; every part has its rows in that order."""
    unread = {part: read_lines(part) for part in parts}
    heads: dict[Id, tuple[Path, bytes, Prediction]] = {}

    def advance(part: Path) -> None:
        following = next(unread[part], None)
        if following is not None:
            heads[following[1].id] = (part, *following)

    for part in parts:
        advance(part)
    for request in requests:
        if request.id not in heads:
            is_there = np.isin(np.uint64(id_hash(request.id)), ids)
            what = "comes in another order in the parts" if is_there else "is in none of the parts"
            raise DeeplayerError(f"{request.where}: the row with id {request.id!r} {what}")
        part, line, row = heads.pop(request.id)
        if question_hash(row) != question_hash(request):
            raise DeeplayerError(
                f"{request.where}: {part} has id {row.id!r} with another image or expression: it is a part of another "
                "run, or the input has changed"
            )
        yield line
        advance(part)
    for part, _, row in heads.values():
        raise DeeplayerError(f"{part} has id {row.id!r}, which the requests do not have")


def _record_of_whole(records: Mapping[Path, RunRecord]) -> RunRecord:
    first = next(iter(records.values()))
    counts: Counter[str] = Counter()
    for record in records.values():
        counts.update(record.counts or {})
    sources = [record.circumstances.get("source") for record in records.values()]
    names = dict.fromkeys(name for some in sources if isinstance(some, list) for name in some)
    circumstances = {**first.circumstances, "source": list(names), "parts": [str(part) for part in records]}
    return RunRecord(first.settings, circumstances, dict(counts))
