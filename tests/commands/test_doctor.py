"""``deeplayer doctor`` and ``deeplayer models``."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.checkpoints import doctor
from deeplayer_cli.commands.exit_codes import DEFECT
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


def test_a_torchvision_that_does_not_fit_torch_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    broken = "operator torchvision::nms does not exist"  # what transformers hides in an ImportError of its own
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({broken!r})")
    (tmp_path / "torchvision-0.1.dist-info").mkdir()
    (tmp_path / "torchvision-0.1.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.1\n")
    checked = test_cli.run("doctor", "--offline", PYTHONPATH=str(tmp_path))
    assert checked.returncode == 1 and b"Traceback" not in checked.stderr, checked.stderr.decode()
    assert f"RuntimeError: {broken}): install the torchvision that fits" in checked.stdout.decode()
    said = test_cli.refusal(test_cli.run("ground", "sample_data", "--model", "demo", PYTHONPATH=str(tmp_path)))
    assert broken in said and "`deeplayer doctor`" in said


def test_an_import_error_of_our_own_is_a_defect() -> None:
    lines = ("import sys", "from deeplayer_cli.checkpoints import doctor", "from deeplayer_cli.app import main")
    program = "; ".join((*lines, "del doctor.examine", "sys.argv = ['deeplayer', 'doctor']", "main()"))
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=100)
    assert finished.returncode == DEFECT and b"cannot import name 'examine'" in finished.stderr


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
