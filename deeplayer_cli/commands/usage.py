"""What is wrong with the words of a command line, as one sentence in the style of all other errors."""

from __future__ import annotations

import re
from contextlib import contextmanager
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from deeplayer_cli.errors import DeeplayerError, did_you_mean, listed, not_one_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CALLED = {int: "a whole number", float: "a number", bool: "true or false"}

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""The base of all errors about the words of a command line; Typer does not export it."""


class Commands(TyperGroup):
    """The commands. Wrong words raise a `DeeplayerError` instead of Typer's box, whose words differ by version."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the words before the command."""
        with _as_sentence():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Read the words of the command, and run it."""
        with _as_sentence():
            return super().invoke(ctx)


@contextmanager
def _as_sentence() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no error: it shows the help
            raise
        raise DeeplayerError(sentence(error)) from error


def sentence(error: Any) -> str:
    """Say what is wrong, and the way out.

    Args:
        error: a `UsageError`.
    """
    if error.ctx is None:  # of an option without its value, or with one that it does not take
        return _plain(error)
    path, command, parameter = error.ctx.command_path, error.ctx.command, getattr(error, "param", None)
    name = "" if parameter is None else _name(error.ctx, parameter)
    help_ = f"`{path} --help`"
    if type(error).__name__ == "MissingParameter":
        choices = _choices(declared(command, parameter)[0])
        return f"`{path}` needs {name}{f': {listed(choices)}' if choices else ''}; {help_} explains it"
    if parameter is not None:
        return refusal(command, parameter, name, error)
    if hasattr(error, "possibilities"):
        near = _near_flag(error.option_name, [flag for one in command.params for flag in one.opts])
        return f"`{path}` has no option {error.option_name}{near or f'; {help_} lists them'}"
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        near = did_you_mean(unknown[1], getattr(command, "commands", {}))
        return f"`{path}` has no command {unknown[1]!r}{near or f'; {help_} lists them'}"
    return f"{_plain(error)}; {help_} shows what it takes"


def refusal(command: Any, parameter: Any, name: str, error: Any, value: object = None) -> str:
    """Say what a parameter must be, and what it was.

    Args:
        command: of the parameter.
        parameter: of the command.
        name: of the parameter, for the sentence.
        error: Typer's ``BadParameter``.
        value: what was given; None if only ``error`` tells.
    """
    if error.message.startswith("--"):
        return str(error.message)  # a sentence of our own
    kind, info = declared(command, parameter)
    value = _given(error) if value is None else value
    if value is None:
        return f"{name}: {error.message}"
    if choices := _choices(kind):
        return not_one_of(name, str(value), choices)
    if kind not in _CALLED:
        return f"{name}: {error.message}"
    return f"{name} must be {_CALLED[kind]}{_range(info.min, info.max)}, not {str(value)!r}"


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""


def _plain(error: Any) -> str:
    """The message of an error in the middle of a sentence."""
    message = str(error.message).rstrip(".")
    return f"{message[:1].lower()}{message[1:]}"


def _near_flag(flag: str, known: Iterable[str]) -> str:
    """As `did_you_mean`, without the dashes, which make all flags look alike."""
    names = [one.removeprefix("--") for one in known if one.startswith("--")]
    return did_you_mean(flag.removeprefix("--"), names).replace("'", "'--", 1)


def _name(context: Any, parameter: Any) -> str:
    """The variable that sets an option, or else the option's flag; an argument's name in capitals."""
    source = context.get_parameter_source(parameter.name) if context else None
    if source is not None and source.name == "ENVIRONMENT":
        return str(parameter.envvar)
    if parameter.param_type_name == "argument":
        return str(parameter.name).strip("_").upper()
    return str(max(parameter.opts, key=len))


def declared(command: Any, parameter: Any) -> tuple[Any, Any]:
    """The type of a parameter without None and lists, and its declaration."""
    kind, info = get_args(get_type_hints(command.callback, include_extras=True)[parameter.name])[:2]
    while get_origin(kind) in (UnionType, Union, list):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    return kind, info


def _choices(kind: Any) -> list[str]:
    """The values of an enumeration; none of another type."""
    return [str(one.value) for one in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _given(error: Any) -> object:
    """The value that was given: pydantic has it, and click's sentence begins with it."""
    if hasattr(error.__cause__, "errors"):
        return error.__cause__.errors()[0]["input"]
    found = re.match(r"(?:Value )?'(.*)' is not|(\S+) is not", error.message, re.DOTALL)
    return found and (found[1] if found[1] is not None else found[2])
