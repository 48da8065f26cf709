"""Runs that are killed, and what is left of them: real processes, real signals, an engine that does nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

N_ROWS = 150
ROOT = Path(__file__).parents[2]


def noop(*arguments: object, **environment: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.noop", *map(str, arguments)]
    env = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, cwd=ROOT, env=env)


def finished(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=200)
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, errors.decode()


def write_requests(path: Path, count: int = N_ROWS) -> Path:
    rows = ({"id": n, "image": f"{n // 3}.jpg", "expression": f"thing {n}"} for n in range(count))
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_requests(tmp_path_factory.mktemp("in") / "requests.jsonl")


@pytest.fixture(scope="module")
def whole(requests: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an uninterrupted run writes."""
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert finished(noop("ground", requests, "-o", output))[0] == 0
    assert len(output.read_bytes().splitlines()) == N_ROWS
    return output.read_bytes()


def assert_resumes(requests: Path, output: Path, whole: bytes) -> None:
    left = output.read_bytes() if output.exists() else b""
    assert whole.startswith(left), "a crash may tear the last line, nothing else"
    code, errors = finished(noop("ground", requests, "-o", output, "--resume"))
    assert code == 0, errors
    assert output.read_bytes() == whole
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name, f"{output.name}.run.json"]


POINTS = [
    *("write:1", "torn:1", "sync:1", "replace:1"),  # of the record, before the first row
    *("write:2", "torn:2", "row:1", "row:5", "torn:40", "write:100", "row:77"),
    *("sync:2", "sync:3", "sync:4", f"write:{N_ROWS + 2}", f"torn:{N_ROWS + 2}", "sync:5", "replace:2"),
]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, requests: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    code, _ = finished(noop("ground", requests, "-o", output, NOOP_DIE=point))
    assert code == -signal.SIGKILL, "the point was never reached"
    assert_resumes(requests, output, whole)


def test_killed_twice(requests: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert finished(noop("ground", requests, "-o", output, NOOP_DIE="torn:30"))[0] == -signal.SIGKILL
    again = noop("ground", requests, "-o", output, "--resume", NOOP_DIE="torn:30")
    assert finished(again)[0] == -signal.SIGKILL
    assert_resumes(requests, output, whole)


def kill_at_random(requests: Path, whole: bytes, folder: Path, rng: random.Random) -> int:
    """Kill one run after a random time and resume it; returns how many rows were there."""
    output = folder / "out.jsonl"
    process = noop("ground", requests, "-o", output, "--batch-size", rng.randint(1, 40), NOOP_DELAY=0.01)
    while not output.exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(rng.random() * 0.3)
    process.kill()
    process.communicate(timeout=200)
    n_rows = output.read_bytes().count(b"\n")
    assert_resumes(requests, output, whole)
    return n_rows


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_a_random_moment(seed: int, requests: Path, whole: bytes, tmp_path: Path) -> None:
    kill_at_random(requests, whole, tmp_path, random.Random(seed))


def test_the_real_engine_resumes_byte_for_byte(tmp_path: Path) -> None:
    arguments = ["ground", "sample_data/requests.jsonl", "--model", "demo", "--batch-size", 1, "--limit", 40]
    command = [sys.executable, "-m", "deeplayer_cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    subprocess.run([*command, "-o", whole], cwd=ROOT, env=environment, check=True, timeout=200, capture_output=True)
    process = subprocess.Popen([*command, "-o", output], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: output.exists() and output.stat().st_size > 0)
    process.kill()
    process.wait()
    assert 0 < output.read_bytes().count(b"\n") < 40
    resumed = [*command, "-o", output, "--resume"]
    subprocess.run(resumed, cwd=ROOT, env=environment, check=True, timeout=200, capture_output=True)
    assert output.read_bytes() == whole.read_bytes()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_good_order(
    number: signal.Signals, code: int, requests: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    process = noop("ground", requests, "-o", output, "--batch-size", 4, NOOP_DELAY=0.05)
    wait_for(lambda: output.exists() and output.stat().st_size > 0)
    process.send_signal(number)
    returned, errors = finished(process)
    assert returned == code
    assert "--resume" in errors and "stopped" in errors
    rows = output.read_bytes()
    assert rows.endswith(b"\n") and rows.count(b"\n") % 4 == 0 and rows != whole
    assert_resumes(requests, output, whole)


def test_a_second_signal_ends_it_at_once(requests: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    process = noop("ground", requests, "-o", output, "--batch-size", 4, NOOP_DELAY=30)
    wait_for(lambda: output.exists())
    assert process.stderr is not None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert b"a second signal stops at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == -signal.SIGINT
    process.communicate()
    assert_resumes(requests, output, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_the_loading(
    number: signal.Signals, code: int, requests: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    process = noop("ground", requests, "-o", output, NOOP_LOADING=100)
    assert process.stderr is not None and process.stderr.readline() == b"loading\n"
    process.send_signal(number)
    returned, errors = finished(process)
    assert returned == code
    assert errors.splitlines() == ["deeplayer: stopped while the model was loading"]
    assert_resumes(requests, output, whole)


def test_two_runs_on_one_output(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    first = noop("ground", requests, "-o", output, NOOP_DELAY=30)
    wait_for(lambda: output.with_name("out.jsonl.run.json").exists())
    for more in ([], ["--resume"], ["--overwrite"]):
        code, errors = finished(noop("ground", requests, "-o", output, *more))
        assert code == 2 and "another run" in errors
    first.kill()
    first.communicate()


def test_a_finished_run_says_so(requests: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_bytes(b"")
    assert finished(noop("ground", requests, "-o", output))[0] == 0
    code, errors = finished(noop("ground", requests, "-o", output, "--resume"))
    assert code == 0 and "nothing left to do" in errors and str(N_ROWS) in errors
    assert output.read_bytes() == whole
    counts = {"rows": N_ROWS, "ok": N_ROWS, "no_box": 0, "error": 0}
    assert orjson.loads(output.with_name("out.jsonl.run.json").read_bytes())["counts"] == counts


def test_a_finished_run_with_errors_stays_one(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert finished(noop("ground", requests, "-o", output, NOOP_FAIL="7"))[0] == 1
    code, errors = finished(noop("ground", requests, "-o", output, "--resume"))
    assert code == 1 and "nothing left to do" in errors


def test_a_finished_run_of_more_rows_than_are_left(requests: Path, tmp_path: Path) -> None:
    output, fewer = tmp_path / "out.jsonl", write_requests(tmp_path / "requests.jsonl", N_ROWS - 30)
    assert finished(noop("ground", requests, "-o", output))[0] == 0
    code, errors = finished(noop("ground", fewer, "-o", output, "--resume"))
    assert code == 0 and "contains 150 rows, but the input has 120: it has changed, or the others are " in errors
    assert "out.jsonl contains 150 rows\n" in errors, "what is in the file, in both sentences"


def test_the_last_line_and_the_record_are_counted_from_the_file(requests: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert finished(noop("ground", requests, "-o", output, NOOP_FAIL="7", NOOP_DIE="row:60"))[0] == -signal.SIGKILL
    code, errors = finished(noop("ground", requests, "-o", output, "--resume", NOOP_FAIL="9"))
    assert code == 1
    statuses = [orjson.loads(line)["status"] for line in output.read_bytes().splitlines()]
    n_error = statuses.count("error")
    assert 0 < n_error < len(statuses) == N_ROWS
    assert f"{N_ROWS} rows in" in errors and f"{N_ROWS - n_error} with a box, 0 without, {n_error} errors" in errors
    assert f"{n_error} rows failed with noop, the first: " in errors and "requests.jsonl:8: as told" in errors
    record = orjson.loads(output.with_name("out.jsonl.run.json").read_bytes())
    assert record["counts"] == {"rows": N_ROWS, "ok": N_ROWS - n_error, "no_box": 0, "error": n_error}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(requests: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, errors = finished(noop("ground", requests, "-o", tmp_path / "out.jsonl"))
    assert code == 2 and "out.jsonl cannot be written" in errors


def test_settings_that_change_results_may_not_change(requests: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    finished(noop("ground", requests, "-o", output, NOOP_DIE="row:50"))
    for changed in (["--keep", "0.2"], ["--method", "none"], ["--seed", "7"], ["--model", "other"], ["--with-kept"]):
        before = output.read_bytes()
        code, errors = finished(noop("ground", requests, "-o", output, "--resume", *changed))
        assert code == 2 and " was " in errors and " is now " in errors
        assert output.read_bytes() == before
    faster = noop("ground", requests, "-o", output, "--resume", "--batch-size", 3, "--workers", 1, "--no-compile")
    assert finished(faster)[0] == 0
    assert output.read_bytes() == whole


def test_the_input_may_change_but_not_a_row(requests: Path, whole: bytes, tmp_path: Path) -> None:
    output, source = tmp_path / "out.jsonl", tmp_path / "in.jsonl"
    lines = requests.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join(lines[:60]))
    assert finished(noop("ground", source, "-o", output))[0] == 0
    source.write_bytes(b"".join(reversed(lines)))
    assert finished(noop("ground", source, "-o", output, "--resume"))[0] == 0

    def by_id(rows: bytes) -> dict[int, dict[str, object]]:
        return {row["id"]: row | {"source": None} for row in map(orjson.loads, rows.splitlines())}

    assert by_id(output.read_bytes()) == by_id(whole), "only the lines that they came from have changed"
    source.write_bytes(lines[3].replace(b"thing 3", b"thing 4"))
    code, errors = finished(noop("ground", source, "-o", output, "--resume"))
    assert code == 2 and "in.jsonl:1" in errors and "another image or expression" in errors


@pytest.mark.parametrize("file", ["/r.jsonl", ""])
@pytest.mark.parametrize("again", [["two/a"], ["two/a", "two/b"], ["two/../two//a"], ["link"]])
def test_a_path_may_be_typed_in_another_way_on_resuming(tmp_path: Path, file: str, again: list[str]) -> None:
    for name in "ab":
        folder = tmp_path / "two" / name
        folder.mkdir(parents=True)
        if file:
            (folder / "r.jsonl").write_bytes(b'{"image": "1.png", "expression": "dog"}\n')
        else:
            (folder / "1.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "two" / "a")
    asked = [] if file else ["-e", "dog"]
    output = tmp_path / "out.jsonl"
    assert finished(noop("ground", f"{tmp_path}/./two/a{file}", *asked, "-o", output))[0] == 0
    first = output.read_bytes()
    sources = [f"{tmp_path}/{source}{file}" for source in again]
    assert finished(noop("ground", *sources, *asked, "-o", output, "--resume"))[0] == 0
    rows = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    name = "r.jsonl:1" if file else "1.png#1"
    assert [row["id"] for row in rows] == [f"a/{name}", f"b/{name}"][: len(again)]
    assert [row["source"] for row in rows] == [row["id"] for row in rows]
    assert output.read_bytes().startswith(first)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    source, output = tmp_path / os.fsdecode(b"l\xe9.jsonl"), tmp_path / "out.jsonl"
    source.write_bytes(b'{"image": "1.png", "expression": "dog"}\n')
    assert finished(noop("ground", source, "-o", output))[0] == 0
    assert finished(noop("ground", source, "-o", output, "--resume"))[0] == 0
    (row,) = map(orjson.loads, output.read_bytes().splitlines())
    assert row["id"].endswith(r"/l\xe9.jsonl:1")
    folder = tmp_path / os.fsdecode(b"t\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).touch()
    code, _ = finished(noop("ground", folder, "-e", os.fsdecode(b"caf\xe9"), "-o", output, "--overwrite"))
    (row,) = map(orjson.loads, output.read_bytes().splitlines())
    assert (code, row["image"], row["expression"]) == (0, r"t\xe9/\xff.png", r"caf\xe9")
    code, errors = finished(noop("ground", folder, "-e", os.fsdecode(b"caf\xe9=cup"), "-o", tmp_path / "new.jsonl"))
    assert code == 2 and "label" in errors and not (tmp_path / "new.jsonl").exists()


def test_errors_are_tried_again_in_their_place(requests: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    code, _ = finished(noop("ground", requests, "-o", output, NOOP_FAIL="7", NOOP_DIE="row:100"))
    assert code == -signal.SIGKILL
    killed = noop("ground", requests, "-o", output, "--retry-errors", NOOP_DIE="replace:2")  # 1 is the record's
    assert finished(killed)[0] == -signal.SIGKILL
    rows = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert [row["id"] for row in rows] == list(range(N_ROWS))
    assert {row["status"] for row in rows} == {"ok", "error"}
    code, errors = finished(noop("ground", requests, "-o", output, "--retry-errors"))
    assert code == 0, errors
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.run.json"]


def test_a_run_gone_wrong_is_stopped(requests: Path, tmp_path: Path) -> None:
    limits = {8: ["--strict"], 18: ["--max-failures", "1"], 28: ["--max-failures", "5%"]}
    for rows, limit in limits.items():
        output = tmp_path / f"{rows}.jsonl"
        code, errors = finished(noop("ground", requests, "-o", output, *limit, NOOP_FAIL="7"))
        assert code == 2 and f"requests.jsonl:{rows}: as told" in errors and "--resume" in errors
        assert len(output.read_bytes().splitlines()) == rows
    code, errors = finished(noop("ground", requests, "--max-failures", "many"))
    assert code == 2 and "'many'" in errors


def test_what_a_terminal_would_obey_is_shown_escaped(tmp_path: Path) -> None:
    source = tmp_path / "a\x1b[31mb.jsonl"
    row = {"id": "evil\x1b]0;title\x07", "image": "x", "expression": "y"}
    source.write_bytes(2 * orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    _, errors = finished(noop("ground", source, "-o", tmp_path / "out.jsonl"))
    assert "\x1b" not in errors and "\x07" not in errors
    assert "\\x1b" in errors


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_flat(tmp_path: Path) -> None:
    peaks = []
    for count in (5_000, 50_000):
        source, output, peak = (tmp_path / f"{count}.{what}" for what in ("jsonl", "out", "peak"))
        assert finished(noop("ground", write_requests(source, count), "-o", output, NOOP_PEAK=peak))[0] == 0
        assert output.read_bytes().count(b"\n") == count
        peaks.append(int(peak.read_text()))
    assert peaks[1] - peaks[0] < 8 * 1024, "KiB; there were 45,000 rows more"


def test_duplicate_ids_are_refused_before_any_work(tmp_path: Path) -> None:
    source = write_requests(tmp_path / "in.jsonl", 5)
    source.write_bytes(source.read_bytes() + b'{"id": 2, "image": "x", "expression": "y"}\n')
    code, errors = finished(noop("ground", source, "-o", tmp_path / "out.jsonl"))
    assert code == 2 and "in.jsonl:3" in errors and "in.jsonl:6" in errors
    assert (tmp_path / "out.jsonl").read_bytes() == b""
