"""Shards of a run put together."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.run import run
from deeplayer_cli.sinks import load_record, record_path
from deeplayer_cli.sinks.merging import merge_parts
from deeplayer_cli.sinks.run_record import RunRecord
from deeplayer_cli.sources import Expression, open_source
from tests.noop import Noop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Recorded(Noop):
    """A no-op answerer whose settings are recorded."""

    def __init__(self, **settings: object) -> None:
        super().__init__(batch_size=3)
        self._settings = {"method": "none", **settings}

    def deciding(self) -> dict[str, object]:
        return self._settings


def ground(source: Path, output: Path, shard: tuple[int, int] = (0, 1), limit: int | None = None, **more: Any) -> Path:
    """Run a shard as the command does: with the source in the record."""
    settings = more.pop("settings", {})
    run(open_source([str(source)], shard=shard, limit=limit, **more), Recorded(**settings), output)
    record = load_record(output)
    assert record is not None
    named = {"source": [str(source)], "expressions": [one.text for one in more.get("expressions", ())]}
    RunRecord(record.settings, named, record.counts, None, record.part).save(output)
    return output


def shards(source: Path, folder: Path, count: int, **more: Any) -> list[Path]:
    return [ground(source, folder / f"part{index}", (index, count), **more) for index in range(count)]


def write(path: Path, images: str = "abcabdcaeef", **more: object) -> Path:
    rows = ({"image": f"{image}.jpg", "expression": f"{n}", **more} for n, image in enumerate(images))
    path.write_bytes(b"\n\n".join([*map(orjson.dumps, rows), b"{bad", b'{"image": "z.jpg", "expression": "last"}']))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "requests.jsonl")


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("like", [False, True])
def test_the_shards_are_the_whole(source: Path, tmp_path: Path, count: int, like: bool) -> None:
    whole, merged = ground(source, tmp_path / "whole"), tmp_path / "merged"
    requests = open_source([str(source)]) if like else None
    record = merge_parts(shards(source, tmp_path, count)[::-1], merged, requests)
    assert merged.read_bytes() == whole.read_bytes()
    expected = load_record(whole)
    assert expected is not None and load_record(merged) == record
    assert (record.fingerprint, record.counts, record.part) == (expected.fingerprint, expected.counts, {})
    assert record.circumstances["source"] == [str(source)]
    assert Counter(record.counts or {})["error"] == 1


def test_images_of_folders(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for name in ("b.jpg", "a/z.jpg", "a/b/y.jpg", "a/c.jpg", "a.jpg", "B/1.jpg", "a/b.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    asked = {"expressions": [Expression("the dog"), Expression("the cat", "cat")]}
    whole = ground(source, tmp_path / "whole", **asked)
    merge_parts(shards(source, tmp_path, 3, **asked), tmp_path / "merged")
    assert (tmp_path / "merged").read_bytes() == whole.read_bytes()


def test_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("10.jsonl", "9.jsonl", "a.jsonl"):
        write(folder / name)
    whole = ground(folder, tmp_path / "whole")
    merge_parts(shards(folder, tmp_path, 4), tmp_path / "merged")
    assert (tmp_path / "merged").read_bytes() == whole.read_bytes()


def change_record(file: Path, /, **changes: object) -> None:
    path = record_path(file)
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | changes))


def copy_of(part: Path) -> Path:
    copy = part.with_name("copy")
    copy.write_bytes(part.read_bytes())
    record_path(copy).write_bytes(record_path(part).read_bytes())
    return copy


def drop_first_row(part: Path) -> None:
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[1:]))


def other_settings(parts: Sequence[Path], source: Path) -> None:
    parts[1].unlink()
    ground(source, parts[1], (1, 3), settings={"method": "fastv"})


def other_source(parts: Sequence[Path], source: Path) -> None:
    parts[1].unlink()
    ground(write(source.parent / "others.jsonl"), parts[1], (1, 3))


def repeat_an_id(parts: Sequence[Path], _: Path) -> None:
    first = parts[0].read_bytes().splitlines(keepends=True)[0]
    parts[1].write_bytes(first + b"".join(parts[1].read_bytes().splitlines(keepends=True)[1:]))


def reverse(part: Path) -> None:
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[::-1]))


REFUSALS: dict[str, Callable[[list[Path], Path], object]] = {
    r"missing: shard 1/3; name all 3 files": lambda parts, _: parts.pop(1),
    r"part0 is given twice: name it once": lambda parts, _: parts.append(parts[0]),
    r"part0 and .*copy are both shard 0/3": lambda parts, _: parts.append(copy_of(parts[0])),
    r"part1 is not finished: continue its run with --resume": lambda parts, _: change_record(parts[1], counts=None),
    r"part1 cannot be merged without part1\.run\.json": lambda parts, _: record_path(parts[1]).unlink(),
    r'part1 is a part of another run: method is "fastv", and in .*part0 "none"$': other_settings,
    r"part1 is a part of another run: source is .*; if the rows are the same, give --like": other_source,
    r'source is \["a+"\], and in': lambda parts, _: change_record(parts[1], circumstances={"source": ["a" * 200]}),
    r"part1 was changed after its run: it has \d rows?": lambda parts, _: drop_first_row(parts[1]),
    r"id '.*requests\.jsonl:1' comes twice, in .*part0 and .*part1": repeat_an_id,
    r"part0 is one of 3 shards, but .*part1 is one of 4 shards": lambda parts, _: change_record(
        parts[1], part={"shard": "1/4"}
    ),
    r"part0 is one of 3 shards, but .*part1 is no shard": lambda parts, _: change_record(parts[1], part={}),
    r"part2 lacks rows of its shard, as its run had --limit 1: continue it": lambda parts, _: change_record(
        parts[2], part={"limit": 1, "shard": "2/3"}
    ),
    r"the rows of .*part0 are not in the order of their places \(.*:\d+\): give --like": lambda parts, _: reverse(
        parts[0]
    ),
    r"missing: shard 3/999999999, 4/999999999, .* and more; name all": lambda parts, _: [
        change_record(part, part={"shard": f"{index}/999999999"}) for index, part in enumerate(parts)
    ],
    r"the order of the rows of several sources cannot be told: give --like": lambda parts, _: [
        change_record(part, circumstances={"source": ["a", "b"]}) for part in parts
    ],
}


@pytest.mark.parametrize("said", REFUSALS)
def test_what_is_refused(said: str, source: Path, tmp_path: Path) -> None:
    parts = shards(source, tmp_path, 3)
    REFUSALS[said](parts, source)
    merged = tmp_path / "merged"
    merged.write_text("before")
    with pytest.raises(DeeplayerError, match=said):
        merge_parts(parts, merged)
    assert merged.read_text() == "before" and not record_path(merged).exists()
    assert not list(tmp_path.glob("*partial*"))


def test_requests_that_the_parts_do_not_answer(source: Path, tmp_path: Path) -> None:
    parts = shards(source, tmp_path, 3)
    lines = source.read_bytes()
    cases = {
        lines + b'\n{"image": "a.jpg", "expression": "more"}': r"requests\.jsonl:26: .*:26' is in none of the parts",
        lines.replace(b'"0"', b'"x"'): r"requests\.jsonl:1: .*part0 has id .*:1' with another image or expression",
        lines.rpartition(b"\n\n")[0]: r"part\d has id '.*:25', which the requests do not have",
        lines: None,
    }
    for content, said in cases.items():
        source.write_bytes(content)
        with pytest.raises(DeeplayerError, match=said) if said else nullcontext():
            merge_parts(parts, tmp_path / "merged", open_source([str(source)]))
    reverse(parts[0])
    with pytest.raises(DeeplayerError, match=r"requests\.jsonl:1: .* comes in another order in the parts"):
        merge_parts(parts, tmp_path / "merged", open_source([str(source)]))


def test_inputs_cut_by_hand_need_the_order(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    lines = [orjson.dumps({"id": n, "image": "a.jpg", "expression": "dog"}) + b"\n" for n in range(6)]
    whole.write_bytes(b"".join(lines))
    for name, some in (("x", lines[::2]), ("y", lines[1::2])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(some))
        ground(tmp_path / f"{name}.jsonl", tmp_path / name)
    with pytest.raises(DeeplayerError, match="another run: source is"):
        merge_parts([tmp_path / "y", tmp_path / "x"], tmp_path / "merged")
    merge_parts([tmp_path / "y", tmp_path / "x"], tmp_path / "merged", open_source([str(whole)]))
    rows = (tmp_path / "merged").read_bytes().splitlines()
    assert [orjson.loads(row)["id"] for row in rows] == list(range(6))
