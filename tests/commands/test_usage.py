"""Wrong words on a command line: one sentence with the value, what it must be, and the nearest name."""

from __future__ import annotations

import re
from enum import Enum

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.commands.configuration import commands_below
from deeplayer_cli.commands.usage import declared
from deeplayer_cli.errors import DeeplayerError, did_you_mean, listed
from tests.commands.test_cli import refusal
from tests.commands.test_cli import run as run_process

PARAMETERS = [
    (path, parameter, declared(command, parameter)[0], declared(command, parameter)[1])
    for path, command in commands_below(get_command(app))
    for parameter in command.params
    if parameter.name != "help"
]
CHOICES = [(path, one, kind) for path, one, kind, _ in PARAMETERS if isinstance(kind, type) and issubclass(kind, Enum)]
NUMBERS = [one for one in PARAMETERS if one[2] in (int, float)]


def refused(*words, **environment):
    finished = CliRunner().invoke(app, [*words], env=environment)
    assert isinstance(finished.exception, DeeplayerError), finished.output
    assert finished.stdout == ""
    return str(finished.exception)


def named(path, parameter):
    flag = max(parameter.opts, key=len)
    return " ".join((*path, flag if parameter.param_type_name == "option" else parameter.name))


@pytest.mark.parametrize(("path", "parameter", "kind"), CHOICES, ids=[named(*one[:2]) for one in CHOICES])
def test_every_option_with_a_closed_set_names_it(path, parameter, kind):
    is_option = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if is_option else parameter.name.upper()
    names = [one.value for one in kind]
    said = refused(*path, *([name] if is_option else []), f"{names[-1]}x")
    assert said == f"{name} must be {listed(names)}, not '{names[-1]}x'; did you mean {names[-1]!r}?"


def test_a_variable_is_named_as_such():
    assert refused("ground", "x", DEEPLAYER_SHARE="unoin") == (
        "DEEPLAYER_SHARE must be each, union or off, not 'unoin'; did you mean 'union'?"
    )
    said = refused("ground", "x", DEEPLAYER_LIMIT="0")
    assert said == "DEEPLAYER_LIMIT must be a whole number of at least 1, not '0'"
    assert refused("score", "x", DEEPLAYER_JSON="maybe") == "DEEPLAYER_JSON must be true or false, not 'maybe'"


@pytest.mark.parametrize(("path", "parameter", "kind", "info"), NUMBERS, ids=[named(*one[:2]) for one in NUMBERS])
def test_every_number_says_what_it_must_be(path, parameter, kind, info):
    name = max(parameter.opts, key=len)
    said = refused(*path, name, "many")
    what = "a whole number" if kind is int else "a number"
    assert re.fullmatch(rf"{name} must be {what}( of at (least|most) \S+| from \S+ to \S+)?, not 'many'", said)
    if info.min is not None:
        assert refused(*path, name, str(info.min - 1)).replace(".0'", "'") == said.replace("many", str(info.min - 1))
        assert f" {info.min}" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["groud"], "`deeplayer` has no command 'groud'; did you mean 'ground'?"),
        (["data", "expot", "x"], "`deeplayer data` has no command 'expot'; did you mean 'export'?"),
        (["nothing"], "`deeplayer` has no command 'nothing'; `deeplayer --help` lists them"),
        (["--verison"], "`deeplayer` has no option --verison; did you mean '--version'?"),
        (["ground", "x", "--kep", "1"], "`deeplayer ground` has no option --kep; did you mean '--keep'?"),
        (["ground", "--nothing"], "`deeplayer ground` has no option --nothing; `deeplayer ground --help` lists them"),
        (["ground", "x", "--limit"], "option '--limit' requires an argument"),
        (["ground"], "`deeplayer ground` needs SOURCE; `deeplayer ground --help` explains it"),
        (
            ["data", "export", "x", "-o", "y"],
            "`deeplayer data export` needs --to: coco, coco-results, yolo, labelstudio, voc, csv or fiftyone; "
            "`deeplayer data export --help` explains it",
        ),
        (["show", "-o"], "option '-o' requires an argument"),
        (
            ["data", "export", "x", "--to", "coco", "-o", "y", "--min-score", "2"],
            "--min-score must be a number from 0",
        ),
        (["ground", "x", "--batch-size", "9999"], "--batch-size must be a whole number of at most 4096, not '9999'"),
        (["ground", "x", "--keep-tokens", "9" * 80], "--keep-tokens must be between"),
    ],
)
def test_other_wrong_words(words, said):
    assert refused(*words).startswith(said)


def test_words_too_many_are_named():
    said = refused("score", "a.jsonl", "b.jsonl", "c.jsonl")
    assert "(b.jsonl c.jsonl); `deeplayer score --help` shows" in said


def test_a_process_says_it_on_one_line():
    assert refusal(run_process("ground", "x", "--share", "al")) == (
        "deeplayer: error: --share must be each, union or off, not 'al'\n"
    )
    helped = run_process("data")
    assert b"export" in helped.stdout + helped.stderr and b"error" not in helped.stderr  # the code is Typer's


def test_a_near_name_is_near():
    assert did_you_mean("flahs", ["auto", "flash"]) == "; did you mean 'flash'?"
    assert did_you_mean("xyz", ["auto", "flash"]) == "" and did_you_mean("x", []) == ""
