"""``deeplayer doctor`` and ``deeplayer models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.checkpoints import doctor
from deeplayer_cli.device.checks import MachineCheck
from tests.commands import test_cli

if TYPE_CHECKING:
    from pathlib import Path

RUNNER = CliRunner()


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_a_failure_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    checks = [MachineCheck("device", "ok", "cpu\x1b[31m"), MachineCheck("hub", status, "away")]
    monkeypatch.setattr(doctor, "examine", lambda *, offline: iter(checks))
    shown = RUNNER.invoke(app, ["doctor"])
    assert shown.exit_code == code
    assert shown.stdout.splitlines() == ["ok    device     cpu\\x1b[31m", f"{status:4}  hub        away"]
    shown = RUNNER.invoke(app, ["doctor", "--json"])
    assert shown.exit_code == code and [one["status"] for one in orjson.loads(shown.stdout)] == ["ok", status]


@pytest.mark.parametrize("error", ["OSError('libtorch_cpu.so: cannot open it\\nmore')", "ImportError('no symbol')"])
def test_a_torch_that_cannot_be_imported_is_a_sentence(error: str, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"raise {error}")
    for more in ([], ["--json"]):
        finished = test_cli.run("doctor", "--offline", *more, PYTHONPATH=str(tmp_path))
        assert finished.returncode == 1 and b"Traceback" not in finished.stderr, finished.stderr.decode()
        said = finished.stdout.decode()
        assert "cannot be imported" in said and "pip install --force-reinstall torch" in said
        assert error.split("'")[1].split("\\n")[0] in said


def test_offline_leaves_the_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_hub", lambda: pytest.fail("asked the hub"))
    names = [check.name for check in doctor.examine(offline=True)]
    assert {"versions", "device", "dtypes", "attention", "compiler", "memory", "cache"} <= set(names)


def test_models() -> None:
    rows = {row["name"]: row for row in orjson.loads(RUNNER.invoke(app, ["models", "--json"]).stdout)}
    eight = rows["OpenGVLab/InternVL2_5-8B"]
    assert (eight["layers"], eight["prunes_after"], eight["licence"], eight["layout"]) == (32, 12, "MIT", "original")
    assert rows["OpenGVLab/InternVL2_5-78B"]["licence"] == "see the card" and rows["demo"]["prunes_after"] == 6
    three = rows["OpenGVLab/InternVL3-8B-hf"]
    assert (three["layers"], three["prunes_after"], three["layout"]) == (28, 10, "native")
    shown = RUNNER.invoke(app, ["models"]).stdout
    assert all(name in shown for name in rows) and "15.04" in shown and "Apache-2.0" in shown
    assert max(map(len, shown.splitlines())) <= 80
