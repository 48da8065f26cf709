"""What the file holds after every single thing that can go wrong with it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import Prediction, parse_request
from deeplayer_cli.sinks import PredictionFile, ResumeMode, RunRecord, disk, load_record, read_predictions, record_path

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = RunRecord({"keep": 0.1}, {"version": "1"})
N_ROWS = 200


def prediction(number: int, status: Any = "ok") -> Prediction:
    return Prediction(id=f"é{number}", image="a.jpg", expression=f"thing {number}", status=status)


ROWS = [prediction(number) for number in range(N_ROWS)]
WHOLE = b"".join(row.to_json() for row in ROWS)


def request(number: int) -> Any:
    return parse_request({"id": f"é{number}", "image": "a.jpg", "expression": f"thing {number}"}, "x:1", "", Path())


def write_rows(path: Path, start: ResumeMode = ResumeMode.RESUME, rows: list[Prediction] = ROWS) -> None:
    with PredictionFile(path, RECORD, start) as file:
        for row in rows:
            if file.unanswered(row):  # type: ignore[arg-type]
                file.write(row)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_lines_are_there_once_written(output: Path) -> None:
    with PredictionFile(output, RECORD, ResumeMode.NEW) as file:
        for number in range(3):
            file.write(ROWS[number])
            assert output.read_bytes().count(b"\n") == number + 1


def test_a_file_that_holds_something_is_kept(output: Path) -> None:
    output.write_bytes(b"precious\n")
    with pytest.raises(DeeplayerError, match=r"out\.jsonl is not empty: --overwrite"):
        PredictionFile(output, RECORD, ResumeMode.NEW)
    assert output.read_bytes() == b"precious\n"
    with pytest.raises(DeeplayerError, match=r"cannot be resumed without out\.jsonl\.run\.json"):
        PredictionFile(output, RECORD, ResumeMode.RESUME)
    write_rows(output, ResumeMode.OVERWRITE)
    assert output.read_bytes() == WHOLE


def test_overwriting_begins_with_the_first_row(output: Path) -> None:
    write_rows(output)
    other = RunRecord({"keep": 0.2}, {})
    with pytest.raises(KeyError), PredictionFile(output, other, ResumeMode.OVERWRITE):
        raise KeyError  # duplicate ids, a model that does not fit, ...
    assert output.read_bytes() == WHOLE and load_record(output) == RECORD
    with PredictionFile(output, other, ResumeMode.OVERWRITE) as file:
        file.write(ROWS[3])
        assert output.read_bytes().count(b"\n") == 1 and load_record(output) == other
    with PredictionFile(output, RECORD, ResumeMode.OVERWRITE):
        pass
    assert output.read_bytes() == b"" and load_record(output) == RECORD


def test_overwriting_keeps_the_rows_if_the_record_cannot_be_saved(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(output)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with PredictionFile(output, RunRecord({"keep": 0.2}, {}), ResumeMode.OVERWRITE) as file:
        with monkeypatch.context() as patch, pytest.raises(DeeplayerError, match="No space left"):
            patch.setattr(disk, "sync", fail)
            file.write(ROWS[3])
        assert output.read_bytes() == WHOLE and load_record(output) == RECORD
        file.write(ROWS[3])


def test_a_retry_keeps_links_and_modes(output: Path) -> None:
    write_rows(output, rows=[prediction(0, "error"), prediction(1)])
    output.chmod(0o640)
    link = output.with_name("link.jsonl")
    link.symlink_to(output.name)
    record_path(link).write_bytes(record_path(output).read_bytes())
    write_rows(link, ResumeMode.RETRY, ROWS[:2])
    assert link.is_symlink() and output.stat().st_mode & 0o777 == 0o640
    assert output.read_bytes() == b"".join(row.to_json() for row in ROWS[:2])


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda path: path.rename(path.with_name("away")), "moved or replaced"),
        (lambda path: (path.unlink(), path.write_bytes(b"")), "moved or replaced"),
        (lambda path: path.write_bytes(b""), "cut or written to"),
    ],
)
def test_a_file_that_another_program_changes_stops_the_run(
    change: Callable[[Path], object], what: str, at_end: bool, output: Path
) -> None:
    with pytest.raises(DeeplayerError, match=what), PredictionFile(output, RECORD, ResumeMode.NEW) as file:
        file.write(ROWS[0])
        change(output)
        if not at_end:
            file.write(ROWS[1])


def test_a_whole_file_stays_whole_if_a_part_of_its_input_is_run_again(output: Path) -> None:
    for rows, part, recorded in (
        (ROWS[:2], {"limit": 2}, {"limit": 2}),
        (ROWS[:4], None, {}),
        (ROWS[:3], {"limit": 3}, {}),
        (ROWS[:5], {"limit": 5}, {"limit": 5}),
    ):
        with PredictionFile(output, RECORD, ResumeMode.RESUME) as file:
            for row in rows:
                if file.unanswered(row):  # type: ignore[arg-type]
                    file.write(row)
        file.finish({"ok": len(rows)}, part=part)
        record = load_record(output)
        assert record is not None and record.part == recorded


def test_changed_gold_is_noticed(output: Path) -> None:
    write_rows(output, rows=ROWS[:1])
    with PredictionFile(output, RECORD, ResumeMode.RESUME) as file:
        assert not file.outdated(request(0)) and not file.outdated(request(1))
        changed = {"id": "é0", "image": "a.jpg", "expression": "thing 0", "box": [1, 2, 3, 4]}
        assert file.outdated(parse_request(changed, "x:1", "", Path()))


def test_resuming_is_offered_where_it_would_work(output: Path) -> None:
    write_rows(output)
    with pytest.raises(DeeplayerError, match="--resume continues its run"):
        PredictionFile(output, RECORD, ResumeMode.NEW)
    with pytest.raises(DeeplayerError) as caught:
        PredictionFile(output, RunRecord({"keep": 0.2}, {}), ResumeMode.NEW)
    assert "--resume" not in str(caught.value)


@given(cut=st.integers(0, len(WHOLE)), tail=st.sampled_from([b"", b"\0" * 5000, b"\xc3", b'{"id', b"{}\n", b"\n\n"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_torn_tail_is_cut_off(cut: int, tail: bytes, tmp_path: Path) -> None:
    output = tmp_path / "torn.jsonl"
    RECORD.save(output)
    output.write_bytes(WHOLE[:cut] + tail)
    write_rows(output)
    assert output.read_bytes() == WHOLE


def test_a_spoiled_line_in_the_middle_is_no_torn_tail(output: Path) -> None:
    write_rows(output)
    lines = WHOLE.splitlines(keepends=True)
    spoiled = b"".join([*lines[:5], b"{}\n", *lines[5:]])
    output.write_bytes(spoiled)
    with pytest.raises(DeeplayerError, match=r"out\.jsonl:6 is not a prediction"):
        PredictionFile(output, RECORD, ResumeMode.RESUME)
    assert output.read_bytes() == spoiled


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "zeros.jsonl"
    with path.open("wb") as stream:
        stream.write(b" \n")
        stream.truncate(2**27)  # a hole, which takes no space
    with pytest.raises(DeeplayerError, match=r"zeros\.jsonl:2 is not a prediction: it is longer than 67,108,864 bytes"):
        list(read_predictions(path))


def test_a_file_of_two_runs_is_refused(output: Path) -> None:
    RECORD.save(output)
    output.write_bytes(WHOLE + WHOLE)
    with pytest.raises(DeeplayerError, match=r"contains id 'é.*' twice"):
        PredictionFile(output, RECORD, ResumeMode.RESUME)


def test_a_setting_that_changed_is_named(output: Path) -> None:
    write_rows(output)
    with pytest.raises(DeeplayerError, match=r"keep was 0\.1 and is now 0\.2"):
        PredictionFile(output, RunRecord({"keep": 0.2}, {}), ResumeMode.RESUME)
    PredictionFile(output, RunRecord({"keep": 0.1}, {"version": "2"}), ResumeMode.RESUME).__exit__(None, None, None)


def test_a_record_that_is_none(output: Path) -> None:
    write_rows(output)
    for content in (b"", b"[]", b'{"settings": 1}', b"\xff"):
        record_path(output).write_bytes(content)
        with pytest.raises(DeeplayerError, match=r"run\.json is not the record of a run"):
            PredictionFile(output, RECORD, ResumeMode.RESUME)


def test_rows_are_known_by_id_and_question(output: Path) -> None:
    write_rows(output, rows=ROWS[:10])
    with PredictionFile(output, RECORD, ResumeMode.RESUME) as file:
        assert [file.unanswered(request(number)) for number in (0, 9, 10)] == [False, False, True]
        other = parse_request({"id": "é3", "image": "a.jpg", "expression": "another"}, "in.jsonl:4", "", Path())
        with pytest.raises(DeeplayerError, match=r"in\.jsonl:4: .*another image or expression"):
            file.unanswered(other)


def test_only_one_may_write(output: Path) -> None:
    with PredictionFile(output, RECORD, ResumeMode.NEW), pytest.raises(DeeplayerError, match="another run"):
        PredictionFile(output, RECORD, ResumeMode.OVERWRITE)
    write_rows(output)


def test_error_rows_are_replaced_in_their_place(output: Path) -> None:
    mixed = [prediction(number, "error" if number % 7 == 0 else "ok") for number in range(N_ROWS)]
    write_rows(output, rows=mixed[:-20])
    assert load_record(output) == RECORD
    write_rows(output, ResumeMode.RETRY)
    assert output.read_bytes() == WHOLE
    assert len(list(output.parent.iterdir())) == 2


def test_what_a_killed_run_kept_aside_is_cleared(output: Path) -> None:
    write_rows(output)
    for what in ("again", "partial"):
        output.with_name(f"out.jsonl.{what}").touch()
    write_rows(output)
    assert len(list(output.parent.iterdir())) == 2


class Fault:
    """Makes the n-th call of one kind fail, and those after it too if it is ``lasting``."""

    def __init__(self, kind: str, number: int, code: int, *, lasting: bool) -> None:
        self.kind, self.number, self.code, self.lasting = kind, number, code, lasting
        self.calls = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(disk, self.kind)

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.number or (self.lasting and self.calls > self.number):
                if self.kind == "write" and self.code == errno.ENOSPC:
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])  # a full disk takes what fits
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        monkeypatch.setattr(disk, self.kind, call)


def run_to(output: Path, start: ResumeMode, rows: list[Prediction]) -> bool:
    """Whether all rows could be written."""
    try:
        write_rows(output, start, rows)
    except DeeplayerError as error:
        assert "cannot be written" in str(error)
        return False
    return True


def every_fault(kind: str, check: Callable[[pytest.MonkeyPatch, Fault], bool]) -> int:
    """Let ``check`` run with the first call failing, then with the second, ... until no call is left to fail."""
    for number in range(1, 10_000):
        for code in (errno.ENOSPC, errno.EIO):
            for lasting in (False, True):
                with pytest.MonkeyPatch.context() as monkeypatch:
                    fault = Fault(kind, number, code, lasting=lasting)
                    fault.install(monkeypatch)
                    if check(monkeypatch, fault):
                        return number
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("kind", "least"), [("write", 30), ("sync", 2), ("replace", 1)])
def test_every_fault_leaves_a_valid_prefix(kind: str, least: int, tmp_path: Path) -> None:
    output, rows = tmp_path / "out.jsonl", ROWS[:30]
    whole = b"".join(row.to_json() for row in rows)

    def check(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> bool:
        output.unlink(missing_ok=True)
        record_path(output).unlink(missing_ok=True)
        done = run_to(output, ResumeMode.NEW, rows)
        monkeypatch.undo()
        left = output.read_bytes()
        assert whole.startswith(left)
        assert left.endswith(b"\n") or not left, "a failed write is taken back"
        assert done is (fault.calls < fault.number)
        write_rows(output, ResumeMode.RESUME, rows)
        assert output.read_bytes() == whole
        return done

    assert every_fault(kind, check) > least


@pytest.mark.parametrize("kind", ["write", "sync", "replace"])
def test_every_fault_while_errors_are_tried_again(kind: str, tmp_path: Path) -> None:
    output, rows = tmp_path / "out.jsonl", ROWS[:30]
    whole = b"".join(row.to_json() for row in rows)
    mixed = [prediction(number, "error" if number % 3 == 0 else "ok") for number in range(25)]

    def check(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> bool:
        output.unlink(missing_ok=True)
        monkeypatch.undo()
        write_rows(output, ResumeMode.RESUME, mixed)
        before = output.read_bytes()
        fault.install(monkeypatch)
        done = run_to(output, ResumeMode.RETRY, rows)
        monkeypatch.undo()
        left = output.read_bytes()
        assert whole.startswith(left) or left.startswith(before), "the old rows, or all of the new ones"
        write_rows(output, ResumeMode.RETRY, rows)
        assert output.read_bytes() == whole
        assert {path.name for path in tmp_path.iterdir()} <= {"out.jsonl", "out.jsonl.run.json"}
        return done and fault.calls < fault.number

    every_fault(kind, check)
