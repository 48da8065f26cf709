"""``deeplayer.toml``: options from a file. Flags and environment variables take precedence."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deeplayer_cli.commands.usage import refusal
from deeplayer_cli.errors import DeeplayerError, did_you_mean, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE_NAME = "deeplayer.toml"

_COMMAND_LINE_ONLY = frozenset({"output", "overwrite", "allow-outside", "help", "version"})
"""A file that came with data must neither replace files nor lift limits."""

CommandPath = tuple[str, ...]


@dataclass(frozen=True)
class FileOption:
    """An option of a command that the file sets.

    Attributes:
        command: the words of the command, such as ``("data", "export")``.
        name: of the parameter.
        flag: of the option.
        value: as the command line would give it, or true or false; a list for options that can be repeated.
        place: file and line.
    """

    command: CommandPath
    name: str
    flag: str
    value: str | bool | list[str]
    place: str


def find_file(folder: Path) -> Path | None:
    """Return the ``deeplayer.toml`` in ``folder`` or in the nearest folder above it; None without one."""
    files = (above / FILE_NAME for above in (folder, *folder.parents))
    return next((file for file in files if os.path.isfile(file)), None)  # noqa: PTH113 - false where it cannot be told


def commands_below(group: Any, path: CommandPath = ()) -> Iterator[tuple[CommandPath, Any]]:
    """Yield all commands of a Typer group with their words."""
    for name, child in group.commands.items():
        if hasattr(child, "commands"):
            yield from commands_below(child, (*path, name))
        else:
            yield (*path, name), child


def read_options(file: Path, group: Any) -> list[FileOption]:
    """Read and check the options in a file.

    A key is a flag without its dashes. A key at the top sets the option in every command where the environment variable
    ``DEEPLAYER_KEY`` does; a key in a table sets it in that command, and takes precedence. Paths start from the folder
    of the file.

    Args:
        file: to read.
        group: the commands.

    Raises:
        DeeplayerError: the file is not TOML, or a command, an option or a value is wrong; the message names the line.
    """
    with reading(str(file)):
        data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        content = tomllib.loads(text)
    except ValueError as error:
        raise DeeplayerError(f"{file} is not TOML: {error}") from error
    return list(_Reader(file, text).options(content, group))


def default_map(options: list[FileOption]) -> dict[str, Any]:
    """Return the options in the form that Typer takes: nested by command, then by parameter."""
    nested: dict[str, Any] = {}
    for one in options:
        table = nested
        for word in one.command:
            table = table.setdefault(word, {})
        table[one.name] = one.value
    return nested


class _Reader:
    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()

    def options(self, content: Mapping[str, Any], group: Any) -> Iterator[FileOption]:
        """Yield the options of all tables, those at the top first, so that later ones replace them."""
        commands = dict(commands_below(group))
        for key, value in content.items():
            if isinstance(value, dict):
                continue
            found = [
                (path, one) for path, command in commands.items() if (one := _option(command, key, _variable(key)))
            ]
            if not found:
                known = [flag for one in commands.values() for flag, var in _flags(one) if var == _variable(flag)]
                raise self._unknown((), key, "there is no option that commands share called", known)
            for path, one in found:
                yield self._checked(path, commands[path], one, (), key, value)
        yield from self._tables((), content, group)

    def _tables(self, path: CommandPath, content: Mapping[str, Any], command: Any) -> Iterator[FileOption]:
        children = getattr(command, "commands", {})
        for key, value in content.items():
            if not isinstance(value, dict) and not path:
                continue
            if isinstance(value, dict) and key in children:
                yield from self._tables((*path, key), value, children[key])
            elif isinstance(value, dict) and (children or not path):
                raise self._unknown((*path, key), None, "there is no command", children)
            elif option := None if children else _option(command, key):
                yield self._checked(path, command, option, path, key, value)
            else:
                flags = [flag for flag, _ in _flags(command)]
                raise self._unknown(path, key, f"`deeplayer {' '.join(path)}` has no option", flags)

    def _checked(
        self, path: CommandPath, command: Any, option: Any, table: CommandPath, key: str, value: Any
    ) -> FileOption:
        place = self._place(table, key)
        if key in _COMMAND_LINE_ONLY:
            raise DeeplayerError(f"{place}: --{key} can be given on the command line only")
        if option.is_flag != isinstance(value, bool) or not isinstance(value, str | int | float | list):
            wanted = "true or false" if option.is_flag else "a text or a number"
            raise DeeplayerError(f"{place}: {key} must be {wanted}, not {value!r}")
        if isinstance(value, list) and not (option.multiple and all(isinstance(one, str) for one in value)):
            wanted = "a list of texts" if option.multiple else "one value"
            raise DeeplayerError(f"{place}: {key} must be {wanted}, not {value!r}")
        texts: Any = value if isinstance(value, list | bool) else [str(value)] if option.multiple else str(value)
        try:
            read = option.process_value(typer.Context(command), texts)
        except typer.BadParameter as error:
            raise DeeplayerError(f"{place}: {refusal(command, option, key, error, value)}") from error
        return FileOption(path, option.name, f"--{key}", self._from_here(texts, read), place)

    def _from_here(self, texts: Any, read: Any) -> Any:
        """Let paths start from the folder of the file; ``read`` shows whether they are paths."""
        if isinstance(texts, list):
            return [self._from_here(*pair) for pair in zip(texts, read, strict=True)]
        return str(self._file.parent / texts) if isinstance(read, Path) else texts

    def _unknown(self, table: CommandPath, key: str | None, what: str, known: Any) -> DeeplayerError:
        name = table[-1] if key is None else key
        return DeeplayerError(f"{self._place(table, key)}: {what} {name!r}{did_you_mean(name, known)}")

    def _place(self, table: CommandPath, key: str | None) -> str:
        """Return file and line of a key, or of a table's heading; the file alone for other ways to write them."""
        current: CommandPath = ()
        for number, line in enumerate(self._lines, start=1):
            if heading := re.match(r"\s*\[([^\[\]]+)\]", line):
                current = tuple(part.strip().strip("\"'") for part in heading[1].split("."))
                if key is None and current[: len(table)] == table:
                    return f"{self._file}:{number}"
            elif key is not None and current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return f"{self._file}:{number}"
        return str(self._file)


def _variable(key: str) -> str:
    return f"DEEPLAYER_{key.replace('-', '_').upper()}"


def _flags(command: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the long flags of a command without their dashes, and the environment variable of each."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for flag in parameter.opts:
                if flag.startswith("--"):
                    yield flag[2:], parameter.envvar


def _option(command: Any, key: str, variable: str | None = None) -> Any:
    """Return the option with the flag ``--key``, and with this environment variable if one is given; None without."""
    for parameter in command.params:
        if parameter.param_type_name == "option" and f"--{key}" in parameter.opts:
            return parameter if variable in (None, parameter.envvar) else None
    return None


def unknown_variables(group: Any) -> Iterator[str]:
    """Yield a sentence for each variable ``DEEPLAYER_...`` that is set and that no option reads."""
    known = {parameter.envvar for _, command in commands_below(group) for parameter in command.params}
    names = sorted(name for name in known if isinstance(name, str))
    for name in sorted(os.environ):
        if name.startswith("DEEPLAYER_") and name not in known:
            yield f"{name} sets no option{did_you_mean(name, names)}"


def set_by_environment(command: Any) -> Iterator[tuple[str, str, str]]:
    """Yield flag, value and variable of the options of a command that the environment sets."""
    for parameter in command.params:
        value = os.environ.get(parameter.envvar) if isinstance(parameter.envvar, str) else None
        if parameter.param_type_name == "option" and value:
            yield parameter.opts[0], value, parameter.envvar
