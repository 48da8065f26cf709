"""Every command with every single change of a file failing once: no input and no earlier output is lost."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli import checkpoints
from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks import disk
from tests.noop import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

SAMPLES = Path(__file__).parents[2] / "sample_data"
CHANGES = {"os.rename", "os.truncate", "os.mkdir", "os.link", "os.symlink"}
"""Audit events that change files; opening for writing, `write` and `fsync` come on top."""


@dataclass
class FaultLayer:
    """Makes the n-th change of a file in ``folder`` fail; counts the changes."""

    folder: str = ""
    fail_at: int = 0
    calls: int = 0

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        else:
            path, changes = (arguments[0] if arguments else None), event in CHANGES
        if changes and (isinstance(path, int) or str(path).startswith(self.folder)):
            self.count()

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


LAYER = FaultLayer()
sys.addaudithook(LAYER.audit)  # it sees what libraries do too, and stays silent outside of these tests


@pytest.fixture(autouse=True)
def counted_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("write", "sync"):
        real = getattr(disk, name)

        def call(*arguments: Any, real: Any = real) -> Any:
            if LAYER.folder:
                LAYER.count()
            return real(*arguments)

        monkeypatch.setattr(disk, name, call)
    yield
    LAYER.folder = ""


@pytest.fixture(scope="module")
def demo() -> Any:
    return checkpoints.load("demo", device="cpu")


def call(arguments: list[str], folder: Path, fail_at: int = 0) -> Result:
    """Call a command; ``fail_at`` is the number of the change that fails, 0 for none."""
    LAYER.folder, LAYER.fail_at, LAYER.calls = str(folder), fail_at, 0
    try:
        return CliRunner().invoke(app, arguments, obj=prepare)
    finally:
        LAYER.folder = ""


def requests(folder: Path, names: str = "abc") -> None:
    rows = [{"id": name, "image": f"{name}.png", "expression": name} for name in names]
    folder.joinpath("in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def samples(folder: Path) -> None:
    """Two rows about a demo scene."""
    shutil.copy(SAMPLES / "images" / "scene-0000.png", folder)
    with (SAMPLES / "requests.jsonl").open("rb") as stream:
        rows = [orjson.loads(next(stream)) | {"image": "scene-0000.png"} for _ in range(2)]
    folder.joinpath("in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def predictions(folder: Path) -> None:
    requests(folder)
    arguments = ["ground", str(folder / "in.jsonl"), "-o", str(folder / "p.jsonl")]
    assert CliRunner().invoke(app, arguments, obj=prepare).exit_code == 0


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def walk(arguments: list[str], folder: Path, earlier: list[str], prepare_folder: Any, *, least: int) -> None:
    """Fail every change once.

    Args:
        arguments: of the command; ``DIR`` stands for the folder.
        folder: an empty folder.
        earlier: outputs that an earlier run has left; they end as they were, or as a run without faults leaves them.
        prepare_folder: makes the inputs.
        least: number of changes that must have been seen, so that the walk is one.
    """

    def fresh(name: str) -> tuple[Path, dict[str, bytes]]:
        new = folder / name / "work"  # rows name the folder of their file
        new.mkdir(parents=True)
        prepare_folder(new)
        for output in earlier:
            new.joinpath(output).parent.mkdir(exist_ok=True)
            new.joinpath(output).write_bytes(b"precious\n")
        return new, files(new)

    def wanted(new: Path) -> list[str]:
        return [one.replace("DIR", str(new)) for one in arguments]

    new, before = fresh("whole")
    finished = call(wanted(new), new)
    assert finished.exit_code == 0, finished.output
    calls, whole = LAYER.calls, files(new)
    assert calls >= least and all(whole[name] == content for name, content in before.items() if name not in earlier)
    for number in range(1, calls + 1):
        new, before = fresh(str(number))
        finished = call(wanted(new), new, number)
        after = files(new)
        assert finished.exit_code != 0 or number > LAYER.calls, f"fault {number} was not noticed"
        assert finished.exception is None or isinstance(finished.exception, (DeeplayerError, SystemExit)), number
        for name, content in before.items():
            is_new = name in earlier and _is_whole(after.get(name, b""), whole[name])
            assert after.get(name) == content or is_new, (number, name)
        assert not [name for name in after if "partial" in name and name not in before], (number, list(after))
        shutil.rmtree(new)


def _is_whole(content: bytes, whole: bytes) -> bool:
    """Whether a file is what a run without faults writes (measured times differ), or whole rows of its beginning."""
    same_length = content.count(b"\n") == whole.count(b"\n")
    return same_length or (whole.startswith(content) and whole.startswith(b'{"id"') and content[-1:] in b"\n")


WITHOUT_A_MODEL = {
    "ground": (["ground", "DIR/in.jsonl", "-o", "DIR/o.jsonl"], [], requests, 8),
    "ground --overwrite": (["ground", "DIR/in.jsonl", "-o", "DIR/o.jsonl", "--overwrite"], ["o.jsonl"], requests, 8),
    "data export": (
        ["data", "export", "DIR/p.jsonl", "--to", "coco", "-o", "DIR/o.json", "--overwrite"],
        ["o.json"],
        predictions,
        3,
    ),
    "data export to a folder": (
        ["data", "export", "DIR/p.jsonl", "--to", "yolo", "-o", "DIR/y", "--overwrite"],
        ["y/data.yaml"],
        predictions,
        3,
    ),
    "data export of two files": (
        ["data", "export", "DIR/p.jsonl", "--to", "labelstudio", "-o", "DIR/o.json", "--overwrite"],
        ["o.json", "o.config.xml"],
        predictions,
        6,
    ),
    "data import": (
        ["data", "import", "DIR/in.jsonl", "-o", "DIR/o.jsonl", "--overwrite"],
        ["o.jsonl"],
        requests,
        3,
    ),
    "demo scenes": (["demo", "scenes", "-o", "DIR/new", "--count", "2"], [], requests, 9),
}


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_every_change_fails_once(name: str, tmp_path: Path) -> None:
    arguments, earlier, prepare_folder, least = WITHOUT_A_MODEL[name]
    walk(arguments, tmp_path, earlier, prepare_folder, least=least)


@pytest.mark.parametrize(
    ("arguments", "earlier", "least"),
    [
        (["calibrate", "DIR/scene-0000.png", "-o", "DIR/prior", "--overwrite", "--model", "demo"], ["prior"], 2),
        (
            [
                *("compare", "DIR/in.jsonl", "--model", "demo", "--methods", "random", "--results", "DIR/r"),
                *("--csv", "DIR/t.csv", "--plot", "DIR/p.svg", "--overwrite"),
            ],
            ["t.csv", "p.svg"],
            20,
        ),
        (
            ["diagnose", "DIR/in.jsonl", "--model", "demo", "--csv", "DIR/t.csv", "--plot", "DIR/p.svg", "--overwrite"],
            ["t.csv", "p.svg"],
            4,
        ),
    ],
    ids=["calibrate", "compare", "diagnose"],
)
def test_every_change_fails_once_with_a_model(
    arguments: list[str], earlier: list[str], least: int, demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "load", lambda *_, **__: demo)
    walk(arguments, tmp_path, earlier, samples, least=least)


def test_a_comparison_goes_on_after_every_fault(demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "load", lambda *_, **__: demo)
    samples(tmp_path)
    results = tmp_path / "r"
    arguments = ["compare", str(tmp_path / "in.jsonl"), "--model", "demo", "--methods", "random", "--json"]
    arguments += ["--results", str(results), "--batch-size", "1"]
    whole = call(arguments, tmp_path)
    n_calls, rows = LAYER.calls, {name: content for name, content in files(results).items() if "run" not in name}
    shutil.rmtree(results)
    for number in range(1, n_calls + 1):
        call(arguments, tmp_path, number)  # each continues what the one before has left
    finished = call(arguments, tmp_path)
    assert finished.exit_code == whole.exit_code == 0
    assert {name: content for name, content in files(results).items() if "run" not in name} == rows
