"""What `--help` says, and what environment variables are called; in this process."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.commands.options import layers_in
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning import registry

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands_of(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from commands_of(child, *path, name)


COMMANDS = dict(commands_of(get_command(app)))
WITHOUT_VARIABLE = ("--expression", "--id")  # repeatable texts, which a variable could not separate safely
NAMES = list(map(" ".join, COMMANDS))


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_help_and_a_variable(name: str) -> None:
    for parameter in COMMANDS[tuple(name.split())].params:
        if parameter.param_type_name == "option" and parameter.opts[0] not in ("--help", *WITHOUT_VARIABLE):
            assert parameter.help, f"{name} {parameter.name} has no help"
            flag = parameter.opts[0].lstrip("-").replace("-", "_").upper()
            assert parameter.envvar.startswith("DEEPLAYER_") and parameter.envvar.endswith(f"_{flag}")


@pytest.mark.parametrize(
    "name", ["ATTENTION", "FORMAT", "IMAGES", "KEEP", "LAYER", "MODEL", "OUTPUT", "QUERY", "RESUME", "SEED"]
)
def test_a_variable_means_the_same_in_every_command(name: str) -> None:
    options = [parameter for command in COMMANDS.values() for parameter in command.params]
    texts = {one.help for one in options if one.envvar == f"DEEPLAYER_{name}" and one.param_type_name == "option"}
    assert len(texts) == 1 or name == "IMAGES"
    assert all("first N" in text for text in texts) or name != "IMAGES"


def test_what_is_refused_as_a_parameter_of_a_method_is_an_option_of_ground() -> None:
    flags = {flag for parameter in COMMANDS["ground",].params for flag in parameter.opts}
    assert {f"--{name}" for name in registry._OPTIONS} <= flags


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_of_the_command_and_no_riddles(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and str(2**63 - 1) not in shown.output and shown.output.count("Example: deeplayer") == 1
    command = COMMANDS[tuple(name.split())]
    words = shlex.split(command.epilog.split("`")[1])
    assert words[: 1 + len(name.split())] == ["deeplayer", *name.split()]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize(("text", "layers"), [("3", [3]), ("2, 4,2", [2, 4]), ("1-3,7", [1, 2, 3, 7])])
def test_layers(text: str, layers: list[int]) -> None:
    assert layers_in("--layers", text) == layers


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-2", "1-99999", "1.5"])
def test_what_is_no_layers(text: str) -> None:
    with pytest.raises(DeeplayerError, match="--layers must be numbers of layers such as 2,4,6 or 1-7, not"):
        layers_in("--layers", text)
