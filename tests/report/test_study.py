"""The study's tables are those of its JSON."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.report.study import TABLES, study_tables

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "deeplayer_cli" / "evaluation" / "study"


def test_one_command_makes_the_committed_tables(tmp_path):
    for path in STUDY.glob("*.json"):
        shutil.copy(path, tmp_path)
    command = [sys.executable, "-m", "deeplayer_cli.report.study", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=100)
    assert finished.returncode == 0, finished.stderr.decode()
    assert (tmp_path / TABLES).read_text() == (STUDY / TABLES).read_text()


def test_every_kind_of_table_is_there():
    text = study_tables(STUDY)
    for title in ("## compare-flops-standard", "## sweep-hard", "## diagnose-standard"):
        assert title in text
    assert "difference" in text and "unpruned" in text


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(DeeplayerError, match="has no outcomes-NAME"):
        study_tables(tmp_path)
    for content in ("{", "{}", "[1]"):
        (tmp_path / "sweep-x.json").write_text(content)
        with pytest.raises(DeeplayerError, match="is not what `deeplayer sweep --json` prints"):
            study_tables(tmp_path)
    finished = subprocess.run(
        [sys.executable, "-m", "deeplayer_cli.report.study"], cwd=ROOT, capture_output=True, timeout=100
    )
    assert finished.returncode != 0 and b"Traceback" not in finished.stderr
