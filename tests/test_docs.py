"""The commands in the documentation: `deeplayer` takes all of them, and those of the recipes run."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from deeplayer_cli.app import app
from tests.forked import CLIENT

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "deeplayer_cli").rglob("*.md"))]
RECIPES = ROOT / "deeplayer_cli" / "commands" / "recipes.md"
NOT_RUN = re.compile(r"# not run in the tests?: needs .+")
OPERATORS = set("|&;()<>\n")
PROGRAMS = {"deeplayer", ".venv/bin/deeplayer"}
KEYWORDS = {"do", "then", "else", "time"}
GROUP = get_command(app)
UsageError = typer.BadParameter.__base__


class Block(NamedTuple):
    line: int
    text: str

    @property
    def is_run(self) -> bool:
        return NOT_RUN.fullmatch(self.text.splitlines()[0]) is None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, one.start()) + 2, one[1]) for one in found]


def commands_in(script: str) -> list[list[str]]:
    """The words of each ``deeplayer`` command of a script; loops run once, with the first value."""
    script = re.sub(r"(?m)(^|\s)#.*$", "", script.replace("\\\n", " "))
    given = dict(re.findall(r"for (\w+) in (\S+)", script)) | dict(re.findall(r'(?m)^(\w+)="(.*)"$', script))
    for name, value in given.items():
        script = re.sub(rf"\${name}\b", value, script)
    lexer = shlex.shlex(script, posix=True, punctuation_chars="|&;()<>\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True
    found: list[list[str]] = []
    command: list[str] | None = None
    starts = True
    for word in lexer:
        if set(word) <= OPERATORS or word in KEYWORDS:
            command, starts = None, True
        elif starts and word in PROGRAMS:
            command = []
            found.append(command)
        elif command is not None:
            command.append(word)
        starts = starts and word not in PROGRAMS and (set(word) <= OPERATORS or word in KEYWORDS)
    return found


def take(words: list[str]) -> None:
    """Read a command as `deeplayer` would, without running it: unknown options and wrong values raise."""
    command = GROUP
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands"), f"there is no command {words[:1]}"
    command.make_context("deeplayer", list(words))


COMMANDS = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}:{block.line}-{number}")
    for page in PAGES
    for block in blocks(page)
    for number, words in enumerate(commands_in(block.text))
    if words not in ([], ["--help"])
]


@pytest.mark.parametrize("words", COMMANDS)
def test_deeplayer_takes_every_command(words):
    take(words)


def test_the_commands_are_found():
    script = "for n in 6 12; do\n  deeplayer compare a \\\n    --max-tiles $n > b  # deeplayer\ndone\n"
    script += 'x="deeplayer methods"\n$x --json | python x --model deeplayer'
    assert commands_in(script) == [["compare", "a", "--max-tiles", "6"], ["methods", "--json"]]
    assert len(COMMANDS) > 90
    with pytest.raises(UsageError):
        take(["ground", "photos", "--keeep", "1"])
    with pytest.raises(UsageError):
        take(["data", "export", "a.jsonl", "-o", "b"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder like that of a clone, with `deeplayer` on the path, served by forks."""
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    programs = tmp_path / "bin"
    programs.mkdir()
    short = tempfile.mkdtemp()  # the name of a socket has at most 104 bytes
    name = f"{short}/socket"
    (programs / "deeplayer").write_text(CLIENT.format(python=sys.executable, socket=name))
    (programs / "deeplayer").chmod(0o755)
    if shutil.which("duckdb") is None and find_spec("duckdb"):
        shim = f"#!{sys.executable}\nimport duckdb, sys\nprint(duckdb.sql(sys.argv[2]) or '')\n"
        (programs / "duckdb").write_text(shim)
        (programs / "duckdb").chmod(0o755)
    monkeypatch.setenv("DEEPLAYER_LIMIT", "24")  # rows: the same commands on fewer of them
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    command = [sys.executable, "-m", "tests.forked", name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
        yield tmp_path
        server.kill()
    shutil.rmtree(short)


def run(block: Block, folder: Path) -> str:
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    finished = subprocess.run(command, cwd=folder, capture_output=True, timeout=200, check=False)
    assert finished.returncode == 0, f"{block.text}\n{finished.stderr.decode()}"
    return finished.stdout.decode()


def test_the_recipes_run(folder):
    lacking = set()
    shown = {}
    for block in blocks(RECIPES):
        needed = {name for name in ("jq", "duckdb") if re.search(rf"^{name} ", block.text, re.MULTILINE)}
        missing = {name for name in needed if shutil.which(name) is None}
        lacking |= missing
        if block.is_run and not missing:
            shown[block.line] = run(block, folder)
    assert orjson.loads((folder / "annotations.json").read_bytes())["annotations"]
    assert list((folder / "dataset" / "labels").rglob("*.txt"))
    assert len(list((folder / "pictures").iterdir())) == 6
    assert any("acc@0.5" in one for one in shown.values()) and any("retained" in one for one in shown.values())
    if lacking:
        pytest.skip(f"{' and '.join(sorted(lacking))} not installed: these recipes did not run, the others did")


COMPARISON = re.compile(
    r"^```sh\n(deeplayer compare sample_data [^\n]*)\n```\n(?:(?!```).)*```\n( method .*?)```", re.MULTILINE | re.DOTALL
)
TABLES = [
    pytest.param(*found, id=str(page.relative_to(ROOT)))
    for page in PAGES
    for found in COMPARISON.findall(page.read_text())
]


def costs_in(table: str) -> list[list[str]]:
    """Of each line of a comparison, what follows from the model's shape: method, keep, GFLOPs; layer, mean keep, KV."""
    lines = re.split(r"─ *\n", table, maxsplit=1)[-1].splitlines()
    return [line.split()[:3] for line in itertools.takewhile(str.strip, lines)]


@pytest.mark.parametrize(("command", "table"), TABLES)
def test_comparisons_cost_what_the_documentation_shows(command, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    printed = CliRunner().invoke(app, shlex.split(command)[1:]).stdout
    assert costs_in(printed) == costs_in(table) != []


def test_the_tables_are_found():
    assert len(TABLES) == 2
