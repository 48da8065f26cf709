"""The reference of all commands, and the files that tools read beside the README."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from deeplayer_cli import __version__
from tests.commands import reference

ROOT = Path(__file__).parents[2]


def test_the_reference_is_that_of_the_code() -> None:
    written = reference.PAGE.read_text()
    assert written == reference.page() + "\n", "run `python -m tests.commands.reference`, and commit the page"


def test_the_reference_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    here = reference.page()
    for columns, kind in (("20", "dumb"), ("300", "xterm-256color")):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("TERM", kind)
        monkeypatch.setenv("DEEPLAYER_KEEP", "0.7")
        assert reference.page() == here


def test_all_commands_and_values_are_in_the_reference() -> None:
    from typer.main import get_command

    from deeplayer_cli.app import app
    from deeplayer_cli.commands.configuration import commands_below

    page = reference.page()
    for path, command in commands_below(get_command(app)):
        section = page.partition(f"\n## deeplayer {' '.join(path)}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            for flag in (*parameter.opts, *parameter.secondary_opts):
                shown = flag in section if flag.startswith("-") else f"`{flag.upper()}`" in section
                assert shown or flag == "--help", f"{path} {flag}"
    assert "default `0.1`" in page and "`each`, `union`, `off`; default `each`" in page and "default `0` |" in page


def test_versions_are_one() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads CITATION.cff")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] == __version__
    assert citation["license"] == project["license"] and citation["authors"] == project["authors"]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
