"""What a person at a terminal sees, with a pseudo-terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import orjson
import pytest

from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks.terminal import TerminalTable

ROOT = Path(__file__).parents[2]
COLUMNS = 80


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    rows = [
        {"id": f"row-{number}", "image": "a.png", "expression": f"the thing {number} \x1b[31m", "box": [1, 2, 30, 40]}
        for number in range(40)
    ]
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


def on_terminal(*arguments: object, stream: int, **environment: str) -> tuple[str, str]:
    """Run `ground` without a model, with stdout (1) or stderr (2) on a terminal; return what both got."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, ("stdout", "stderr")[stream - 1]: child}
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment
    command = [sys.executable, "-m", "tests.noop", "ground", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, **pipes) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                chunk = os.read(parent, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        piped = (process.stderr or process.stdout).read()  # type: ignore[union-attr]
    os.close(parent)
    texts = (shown.decode(), piped.decode())
    return texts if stream == 1 else texts[::-1]


def test_rows_on_a_terminal_are_a_table_that_fits(requests: Path) -> None:
    shown, said = on_terminal(requests, stream=1, NOOP_FAIL="thing 7")
    heading, *lines = shown.splitlines()
    assert heading.split() == ["id", "box", "score", "IoU", "expression"]
    assert len(lines) == 40 and max(map(len, lines)) <= COLUMNS and "\x1b" not in shown
    assert lines[7].split(maxsplit=2)[:2] == ["row-7", "noop:"]
    assert lines[8].startswith("row-8 ") and " 0.50 " in lines[8] and "the thing 8" in lines[8]
    assert "40 rows in" in said


def test_json_lines_are_written_when_asked_for_or_to_a_pipe(requests: Path) -> None:
    shown, _ = on_terminal(requests, "--jsonl", "--limit", 2, stream=1)
    assert [orjson.loads(line)["id"] for line in shown.splitlines()] == ["row-0", "row-1"]
    rows, _ = on_terminal(requests, "--limit", 2, stream=2)
    assert [orjson.loads(line)["id"] for line in rows.splitlines()] == ["row-0", "row-1"]


def test_the_bar_is_readable_at_80_columns(requests: Path, tmp_path: Path) -> None:
    _, said = on_terminal(requests, "-o", tmp_path / "out.jsonl", "--batch-size", 4, stream=2, NOOP_DELAY="0.15")
    bars = [part for part in said.split("\r") if "%|" in part]
    assert bars and max(map(len, bars)) <= COLUMNS
    late = bars[-1]
    assert "/40 " in late and "left" in late and "Acc@0.5" in late
    assert len(late.split("|")[1]) >= 16, late


def test_a_long_id_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TerminalTable(60)
    first = table.encode(Prediction("folder/" * 9 + "a.jsonl:12", "a", "b", "no_box", score=None, iou=0.0)).decode()
    assert first.splitlines()[1].startswith("...") and "a.jsonl:12 no box" in first
    assert table.encode(Prediction(5, "a", None, "ok", box=(1.0, 2.0, 3.0, 4.5), score=0.987)).decode() == (
        f"{'5':<24} {'1.0 2.0 3.0 4.5':<27}  0.99       \n"[:61].rstrip("\n")[:60] + "\n"
    )
