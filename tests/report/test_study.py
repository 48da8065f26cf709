"""The study's tables are those of its JSON."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.compare import paired_difference
from deeplayer_cli.report.cost_tables import FLOPS, TIME, largest_within, priced_splits
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
    for title in (
        "## At equal keep: hard",
        "## At equal measured time: standard",
        "## sweep-primed-hard",
        "## diagnose-standard",
    ):
        assert title in text
    assert "Differences" in text and "unpruned" in text


def test_what_the_readme_says_of_a_fifth_of_the_flops_and_of_its_time():
    text = (STUDY.parent / "README.md").read_text()
    for lines in priced_splits(STUDY).values():
        (scout,) = (line for line in lines if line.run.label == "scout-focus" and line.run.keep == 0.15)
        kept = sum(scout.run.right) / sum(lines[0].run.right)
        assert f"{kept:.1%}".replace("100.0%", "100%") in text
        for measure in (FLOPS, TIME):
            assert f"{measure.of(scout):.1%}" in text
            others = largest_within(lines[1:], measure, measure.of(scout)).values()
            assert len(others) > 5
            for other in others:
                gap = paired_difference(other.run.right, scout.run.right, other.run.images)
                assert gap.high < 0 or other.run.label == "scout-focus"


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
