"""Standard streams that are closed or full, and signals that the process ignores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deeplayer_cli.schema import Prediction
from tests.commands.test_crash import write_requests

ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.executable} -m"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    box = (0.0, 0.0, 10.0, 10.0)
    path.write_bytes(Prediction(1, "a.jpg", "dog", "ok", box, (box,), gold=box, width=20, height=20).to_json())
    return path


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, timeout=200, cwd=ROOT, env={**os.environ})


@pytest.mark.parametrize("redirection", [">&-", "> /dev/full"])
@pytest.mark.parametrize("command", ["score {}", "score {} --json", "methods", "methods --json", "--version"])
def test_a_result_that_nobody_gets_is_no_success(command: str, redirection: str, predictions: Path) -> None:
    if redirection.endswith("full") and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    finished = shell(f"{PYTHON} deeplayer_cli {command.format(predictions)} {redirection}")
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1 and finished.stderr.startswith(b"deeplayer: error: ")
    assert b"stdout" in finished.stderr or redirection == ">&-"


@pytest.mark.parametrize("redirection", ["2>&-", "<&-"])
@pytest.mark.parametrize(
    ("command", "code"), [("score {}", 0), ("methods", 0), ("score absent", 2), ("score --absent", 2)]
)
def test_closed_stderr_and_stdin_change_no_result(command: str, code: int, redirection: str, predictions: Path) -> None:
    finished = shell(f"{PYTHON} deeplayer_cli {command.format(predictions)} {redirection}")
    assert finished.returncode == code
    assert bool(finished.stdout) == (code == 0)


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    requests, output = write_requests(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl"
    finished = shell(f"{PYTHON} tests.noop ground {requests} -o {output} >&- 2>&- <&-")
    assert finished.returncode == 0
    assert [line[:7] for line in output.read_bytes().splitlines()] == [b'{"id":%d' % n for n in range(5)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals, tmp_path: Path) -> None:
    requests, output = write_requests(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.noop", "ground", str(requests), "-o", str(output), "--batch-size", "1"],
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "NOOP_DELAY": "0.01"},
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),  # as a shell's background job or nohup
    )
    while not output.exists() or not output.stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(2):
        process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0 and b"finishing" not in errors
    assert len(output.read_bytes().splitlines()) == 150


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_stdout_has_several_names(output: str, tmp_path: Path) -> None:
    """Rows are appended where the shell appends, and no record is written beside a descriptor."""
    if output.startswith("/proc") and not Path("/proc/self/fd").exists():
        pytest.skip("this system has no /proc")
    requests, rows = write_requests(tmp_path / "in.jsonl", 5), tmp_path / "rows.jsonl"
    rows.write_bytes(b"before\n")
    finished = shell(f"{PYTHON} tests.noop ground {requests} -o {output} >> {rows}")
    assert finished.returncode == 0, finished.stderr
    assert [line[:7] for line in rows.read_bytes().splitlines()] == [b"before", *(b'{"id":%d' % n for n in range(5))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "rows.jsonl"]
    assert not Path("-").exists() and not Path(f"{output}.run.json").exists()
    refused = shell(f"{PYTHON} tests.noop ground {requests} -o {output} --resume >> {rows}")
    assert refused.returncode == 2 and b"stdout cannot be resumed" in refused.stderr


def test_a_descriptor_of_the_shell_is_an_output(tmp_path: Path) -> None:
    requests, rows = write_requests(tmp_path / "in.jsonl", 5), tmp_path / "rows.jsonl"
    finished = shell(f"{PYTHON} tests.noop ground {requests} -o /dev/fd/3 3>> {rows}")
    assert finished.returncode == 0 and rows.read_bytes().count(b"\n") == 5 and not finished.stdout


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("pipe", ["cat {} |", "< {}"])
def test_score_and_export_read_stdin(name: str, pipe: str, predictions: Path, tmp_path: Path) -> None:
    start = f"{pipe.format(predictions)} {PYTHON} deeplayer_cli"
    scored = shell(f"{start} score {name}")
    assert scored.returncode == 0 and b"100.0%" in scored.stdout, scored.stderr
    assert shell(f"{start} data export {name} --to csv -o -").stdout.count(b"\n") == 2


def test_a_bad_line_of_stdin_is_named(tmp_path: Path) -> None:
    finished = shell(f"echo '{{}}' | {PYTHON} deeplayer_cli score -")
    assert finished.returncode == 2 and finished.stderr.startswith(b"deeplayer: error: stdin:1 is not a prediction")
