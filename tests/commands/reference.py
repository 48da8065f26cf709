"""Write the reference of all commands, ``deeplayer_cli/commands/README.md``, from their signatures.

``python -m tests.commands.reference`` writes it; a test compares. It reads the declarations, and not what ``--help``
renders, so it depends neither on the terminal nor on the version of Typer.
"""

from __future__ import annotations

import inspect
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo

from deeplayer_cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import typer

PAGE = Path(__file__).parents[2] / "deeplayer_cli" / "commands" / "README.md"
_HEAD = """# Commands

All commands, with their arguments and options. `python -m tests.commands.reference` writes this page from the code, and
a test compares them: change the code, not the page. `deeplayer COMMAND --help` shows the same. An option is also set by
its environment variable, and by [`deeplayer.toml`](../runtime/README.md#options-in-variables-and-in-a-file).
"""


def commands(group: typer.Typer, *path: str) -> Iterator[tuple[str, Any]]:
    """Yield all commands with their words, those of groups last."""
    for one in group.registered_commands:
        yield " ".join((*path, one.name or one.callback.__name__.strip("_").replace("_", "-"))), one
    for child in group.registered_groups:
        yield from commands(child.typer_instance, *path, child.name)


def page() -> str:
    """Return the whole page."""
    found = list(commands(app))
    contents = "\n".join(f"* [`deeplayer {name}`](#deeplayer-{name.replace(' ', '-')})" for name, _ in found)
    return "\n".join([_HEAD, contents, *(section(name, one) for name, one in found)])


def section(name: str, command: Any) -> str:
    parts = [f"\n## deeplayer {name}\n", inspect.getdoc(command.callback), f"\n{command.epilog}\n"]
    arguments, options = [], []
    for parameter, info, kind in parameters(command.callback):
        if isinstance(info, ArgumentInfo):
            arguments.append(f"| `{parameter.name.upper()}` | {cell(info.help)} | {allowed(kind)} |")
        else:
            declared = (info.default, *info.param_decls)  # Typer keeps the first one as the default
            flags = ", ".join(f"`{flag}`" for flag in declared if isinstance(flag, str))
            variable = f"`{info.envvar}`" if info.envvar else ""
            options.append(f"| {flags} | {cell(info.help)} | {values(parameter, info, kind)} | {variable} |")
    if arguments:
        parts += ["| argument | | |\n|---|---|---|", *arguments, ""]
    if options:
        parts += ["| option | | values, default | variable |\n|---|---|---|---|", *options]
    return "\n".join(parts)


def parameters(callback: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any, Any]]:
    """Yield each parameter with its declaration and its type, without those that Typer fills in."""
    hints = get_type_hints(callback, include_extras=True)
    for parameter in inspect.signature(callback).parameters.values():
        kind, *infos = get_args(hints[parameter.name]) if hasattr(hints[parameter.name], "__metadata__") else (None,)
        if infos:
            yield parameter, infos[0], kind


def values(parameter: inspect.Parameter, info: Any, kind: Any) -> str:
    parts = [allowed(kind)]
    low, high = info.min, info.max
    if low is not None or (high is not None and high < 2**60):
        bounds = (f"from {low}" if low is not None else "", f"to {high}" if high is not None and high < 2**60 else "")
        parts.append(" ".join(filter(None, bounds)))
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    if parameter.default is inspect.Parameter.empty:
        parts.append("required")
    elif default is not None and default is not False and info.show_default is not False:
        parts.append(f"default `{default}`")
    return cell("; ".join(filter(None, parts)))


def allowed(kind: Any) -> str:
    """Return the values of a type: the names of an enumeration, or what kind of value it is."""
    if get_origin(kind) in (UnionType, Union):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is list:
        return f"{allowed(get_args(kind)[0])}, several"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind)
    return {int: "integer", float: "number", str: "text", Path: "path", bool: ""}[kind]


def cell(text: str | None) -> str:
    """Return a text that can stand in a table."""
    return (text or "").replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page() + "\n")
