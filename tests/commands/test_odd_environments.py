"""Every command in odd environments: it works, or refuses with one sentence, and never ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema import Prediction

ROOT = Path(__file__).parents[2]
SAMPLES = str(ROOT / "sample_data" / "requests.jsonl")
IMAGE = str(ROOT / "sample_data" / "images" / "scene-0000.png")
HUGE = "9" * 80
DEMO = ["--model", "demo"]


def commands(predictions: Path) -> dict[str, list[str]]:
    """A call of every command, small enough for a test."""
    folder = predictions.parent
    return {
        "ground": ["ground", SAMPLES, *DEMO, "--limit", "1"],
        "score": ["score", str(predictions)],
        "compare": ["compare", SAMPLES, *DEMO, "--methods", "random", "--limit", "1"],
        "report": ["report", str(predictions), "-o", str(predictions.parent / "report.html"), "--overwrite"],
        "show": ["show", str(predictions), "-o", str(predictions.parent / "pictures")],
        "diagnose": ["diagnose", SAMPLES, *DEMO, "--images", "1"],
        "sweep": ["sweep", SAMPLES, *DEMO, "--limit", "8", "--layers", "6", "--images", "1"],
        "methods": ["methods"],
        "verify": ["verify", "demo"],
        "bench": ["bench", "roofline", "--tflops", "1", "--bandwidth", "1"],
        "calibrate": ["calibrate", IMAGE, "-o", str(folder / "prior"), *DEMO],
        "import": ["data", "import", SAMPLES, "--box-format", "xyxy", "-o", str(folder / "i.jsonl")],
        "export": ["data", "export", str(predictions), "--to", "csv", "-o", str(folder / "e.csv")],
        "scenes": ["demo", "scenes", "-o", str(folder / "scenes"), "--count", "1"],
        "evaluate": ["demo", "evaluate", "--count", "1"],
        "look": ["demo", "look", "--count", "1"],
        "train": ["demo", "train", "-o", str(folder / "run"), "--steps", "0", "--vision-steps", "0"],
    }


NAMES = list(commands(Path()))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    box = (0.0, 0.0, 10.0, 10.0)
    path.write_bytes(Prediction(1, "a.jpg", "dog", "ok", box, (box,), gold=box, width=20, height=20).to_json())
    return path


def shell(line: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **variables}
    command = ["/bin/sh", "-c", f"{line}", sys.executable, "-m", "deeplayer_cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=300, env=environment)


def assert_in_good_order(finished: subprocess.CompletedProcess[bytes], *, silent: bool = False) -> None:
    said = finished.stderr.decode(errors="replace")
    assert finished.returncode in (0, 1, 2), said
    assert "Traceback" not in said
    assert silent or finished.returncode != 2 or said.strip()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ('exec "$0" "$@"', {"TMPDIR": "/absent", "TEMP": "/absent", "TMP": "/absent"}),
        ('exec "$0" "$@" 2>&-', {}),
        ('exec "$0" "$@"', {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "40"}),
    ],
    ids=["no TMPDIR", "closed stderr", "ascii"],
)
def test_every_command(name: str, line: str, variables: dict[str, str], predictions: Path) -> None:
    line = f"cd {predictions.parent} && {{ {line}; }}"
    finished = shell(line, *commands(predictions)[name], **variables)
    assert_in_good_order(finished, silent="2>&-" in line)
    if "TMPDIR" not in variables:
        assert finished.returncode == 0, finished.stderr.decode()


@pytest.mark.parametrize("name", NAMES)
def test_a_deleted_working_folder(name: str, predictions: Path) -> None:
    line = f'cd {predictions.parent}; mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"'
    finished = shell(line, *commands(predictions)[name])
    assert finished.returncode == 2
    assert finished.stderr == b"deeplayer: error: the working folder no longer exists: change to another\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["ground", "LOOP", *DEMO],
        ["ground", SAMPLES, *DEMO, "--limit", "1", "--image-root", "LOOP"],
        ["ground", SAMPLES, *DEMO, "--limit", "1", "-o", "LOOP"],
        ["ground", SAMPLES, *DEMO, "--limit", "1", "-o", "LOOP/out.jsonl"],
        ["ground", SAMPLES, "--model", "LOOP"],
        ["ground", SAMPLES, *DEMO, "--method", "d2pruner", "--prior", "LOOP"],
        ["score", "LOOP"],
        ["score", "PREDICTIONS", "--gold", "LOOP"],
        ["compare", "LOOP", *DEMO],
        ["compare", SAMPLES, *DEMO, "--limit", "1", "--results", "LOOP"],
        ["compare", "--from", "LOOP"],
        ["compare", SAMPLES, *DEMO, "--limit", "1", "--csv", "LOOP"],
        ["diagnose", "LOOP", *DEMO],
        ["diagnose", SAMPLES, *DEMO, "--images", "1", "--plot", "LOOP/plot.png"],
        ["verify", "LOOP"],
        ["verify", "demo", "--data", "LOOP"],
        ["calibrate", "LOOP", *DEMO, "-o", "prior"],
        ["demo", "scenes", "-o", "LOOP", "--count", "1"],
        ["demo", "train", "-o", "LOOP", "--steps", "0", "--vision-steps", "0"],
    ],
    ids=" ".join,
)
def test_symlinks_in_a_circle(arguments: list[str], predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = predictions.parent / "loop"
    loop.symlink_to(loop)
    monkeypatch.chdir(predictions.parent)
    names = {"LOOP": str(loop), "PREDICTIONS": str(predictions)}
    names |= {f"LOOP/{name}": str(loop / name) for name in ("out.jsonl", "plot.png")}
    finished = CliRunner().invoke(app, [names.get(one, one) for one in arguments])
    assert finished.exit_code != 0 and loop.is_symlink()
    assert isinstance(finished.exception, (DeeplayerError, OSError, SystemExit)), finished.exception  # one line each


def is_integer(parameter: Any) -> bool:
    """Whether an option takes an integer, in typer's words or, in older versions, in click's."""
    described = getattr(parameter, "type_descriptor", None)
    return described.annotation is int if described else parameter.type.name.startswith("integer")


def integers() -> list[tuple[str, str]]:
    """Every integer option of every command."""
    root = get_command(app)
    groups = {"": root.commands, "demo ": root.commands["demo"].commands}  # type: ignore[attr-defined]
    return [
        (f"{group}{name}", parameter.opts[0])
        for group, found in groups.items()
        for name, command in found.items()
        for parameter in command.params
        if is_integer(parameter)
    ]


@pytest.mark.parametrize("number", [HUGE, f"-{HUGE}"], ids=["large", "small"])
def test_integers_of_80_digits(number: str, tmp_path: Path) -> None:
    assert len(integers()) > 20
    needs = {"bench": ["roofline"], "ground": [SAMPLES], "calibrate": ["a", "-o", "b"], "compare": [SAMPLES]}
    needs |= {"show": ["a", "-o", str(tmp_path / "s")], "diagnose": [SAMPLES], "sweep": [SAMPLES]}
    needs |= {name: ["-o", str(tmp_path / "s")] for name in ("demo train", "demo scenes")}
    for command, flag in integers():
        finished = CliRunner().invoke(app, [*command.split(), *needs.get(command, []), f"{flag}={number}"])
        assert isinstance(finished.exception, DeeplayerError), (command, flag, finished.exception)
        assert str(finished.exception).startswith(f"{flag} must be ")
