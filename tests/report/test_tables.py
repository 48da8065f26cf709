"""Tables on small terminals, and under encodings that lack a character."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deeplayer_cli.schema import Prediction

ROOT = Path(__file__).parents[2]
HEADINGS = {"score": ["errors", "acc@0.5", "acc@0.25", "centre"], "methods": ["method", "keeps", "source"]}


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "deeplayer_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=200, cwd=ROOT, env={**os.environ, **variables})


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    box = (0.0, 0.0, 10.0, 10.0)
    row = Prediction("ä", "a.jpg", "Straße", "ok", box, (box,), gold=box, meta={"kind": "größe_中" * 20})
    path.write_bytes(row.to_json())
    return path


@pytest.mark.parametrize("columns", ["20", "40", "70", "80"])
@pytest.mark.parametrize("command", HEADINGS)
def test_headings_are_whole_on_small_terminals(command: str, columns: str, predictions: Path) -> None:
    arguments = ["score", predictions, "--by", "kind"] if command == "score" else [command]
    shown = run(*arguments, COLUMNS=columns).stdout.decode()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= (80 if columns == "80" else 90)
    for heading in HEADINGS[command]:
        assert heading in shown


def test_a_table_of_published_figures_cuts_no_word() -> None:
    shown = run("compare", "--published", "deep-layer-paper", COLUMNS="60").stdout.decode().split()
    assert {"deep-layer-mis", "published", "(D2Pruner)"} <= set(shown)


def test_splits_that_do_not_fit_go_into_a_table_below() -> None:
    wide, narrow = (
        run("compare", "--published", "deep-layer-paper", COLUMNS=columns).stdout.decode() for columns in ("200", "80")
    )
    assert max(map(len, narrow.splitlines())) <= 80
    assert wide.count("keep, layer") == 1 and narrow.count("keep, layer") == 2
    lines = [line.split()[1:] for line in narrow.splitlines() if line.split()[:1] == ["deep-layer-mis"]]
    assert [len(line) for line in lines] == [6, 4]
    assert [*lines[0], *lines[1]] in [line.split()[1:] for line in wide.splitlines()]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", [*HEADINGS, "--help", "ground --help", "refusal"])
def test_encodings_that_lack_a_character(command: str, encoding: str, predictions: Path) -> None:
    arguments = {"score": ["score", predictions, "--by", "kind"], "refusal": ["score", "no-中.jsonl"]}
    finished = run(*arguments.get(command, command.split()), PYTHONIOENCODING=encoding, COLUMNS="40")
    assert finished.returncode == (2 if command == "refusal" else 0), finished.stderr.decode()
    assert b"Traceback" not in finished.stderr
    (finished.stdout + finished.stderr).decode(encoding)
    if command == "score":
        assert rb"\u4e2d" in finished.stdout
