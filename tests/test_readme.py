"""What the README says is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
READMES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deeplayer_cli" / "commands" / "recipes.md"]
READMES += sorted((ROOT / "deeplayer_cli").rglob("README.md"))
SET_UP = re.compile(r"python3 -m venv \.venv|\.venv/bin/pip install .*")


def steps_of(command: str) -> str:
    """A README command without its set-up, in the environment that the tests run in."""
    steps = [step for step in command.split(" && ") if not SET_UP.fullmatch(step)]
    return " && ".join(steps).replace(".venv/bin/", f"{Path(sys.executable).parent}/")


def shell_commands() -> list[str]:
    """Every line of every ``sh`` block, continuation lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]


def test_the_first_command_grounds_the_samples(tmp_path):
    command = next(line for line in shell_commands() if line.startswith("python3 -m venv"))
    assert "ground sample_data --model demo" in command
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", steps_of(command)], cwd=tmp_path, capture_output=True, timeout=280
    )
    assert finished.returncode == 0, finished.stderr.decode()
    requests = (ROOT / "sample_data" / "requests.jsonl").read_bytes().splitlines()
    rows = [orjson.loads(line) for line in (tmp_path / "boxes.jsonl").read_bytes().splitlines()]
    assert [row["id"] for row in rows] == [orjson.loads(line)["id"] for line in requests]
    assert "acc@0.5" in finished.stdout.decode()
    assert len(finished.stderr.splitlines()) == 1, "a summary, and no remark"


def test_the_second_command_is_the_tests():
    command = [line for line in shell_commands() if line.startswith("python3 -m venv")][1]
    assert command == "python3 -m venv .venv && .venv/bin/pip install '.[dev]' && .venv/bin/python -m pytest -n auto"


def test_the_readme_takes_five_minutes():
    assert len(README.splitlines()) <= 195


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.parent.name))
def test_every_option_that_a_readme_names_exists(readme):
    from typer.main import get_command

    from deeplayer_cli.app import app

    def options(command):
        own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        return own.union(*(options(child) for child in getattr(command, "commands", {}).values()))

    others = r"^(?:chromium|python -m lmms_eval) (?:.*\\\n)*.*|`uv [^`]*`"
    ours = re.sub(others, "", readme.read_text(), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
    assert named - options(get_command(app)) <= {"--help", "--version", "--install-completion", "--show-completion"}


def headings(text):
    """The anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.parent.name))
def test_links_lead_somewhere(readme):
    for path, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", readme.read_text()):
        target = (readme.parent / path) if path else readme
        assert target.exists(), path
        assert not anchor or anchor in headings(target.read_text()), f"{path}#{anchor}"


def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    finished = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, timeout=280, check=False
    )
    assert finished.returncode == 0, finished.stderr.decode()
    lines = finished.stdout.decode().splitlines()
    assert len(lines) == 2 and "'rows': 108" in lines[-1]


def test_every_method_is_in_the_readme():
    from deeplayer_cli.pruning import known_methods

    tables = (README, (ROOT / "deeplayer_cli" / "pruning" / "README.md").read_text())
    for name in known_methods():
        assert all(f"`{name}`" in table for table in tables), name
