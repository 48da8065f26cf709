"""``deeplayer config``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.configuration import (
    FILE_NAME,
    commands_below,
    find_file,
    read_options,
    set_by_environment,
    unknown_variables,
)

logger = logging.getLogger("deeplayer")


def config(context: typer.Context, json: options.Json = False) -> None:
    """Show the options that `deeplayer.toml` and environment variables set, for which commands, and where.

    The file is searched in the working folder and in the folders above it. Flags take precedence over environment
    variables, and these over the file.
    """
    group = context.find_root().command
    file = find_file(Path.cwd())
    effective: dict[tuple[str, str], tuple[str, str]] = {}  # value and place, by command and flag
    for one in read_options(file, group) if file else ():
        effective[" ".join(one.command), one.flag] = (_shown(one.value), one.place)
    for path, command in commands_below(group):
        for flag, value, variable in set_by_environment(command):
            effective[" ".join(path), flag] = (value, variable)
    for sentence in unknown_variables(group):
        logger.warning(sentence)
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for (command_name, flag), (value, place) in effective.items():
        grouped.setdefault((flag, value, place), []).append(command_name)
    rows = [
        {"option": flag, "value": value, "from": place, "commands": names}
        for (flag, value, place), names in sorted(grouped.items())
    ]
    if json:
        typer.echo(orjson.dumps({"file": file and str(file), "options": rows}, option=orjson.OPT_INDENT_2))
        return
    if not rows:
        typer.echo(f"no option is set: there is no {FILE_NAME} here or above, and no DEEPLAYER_ variable sets one")
        return

    from rich.markup import escape

    from deeplayer_cli.report.tables import plain_table, show_table

    table = plain_table("option", "value", "from", "commands")
    for row in rows:
        cells = (row["option"], row["value"], row["from"], ", ".join(row["commands"]))
        table.add_row(*map(escape, map(str, cells)))
    show_table(table)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else ", ".join(value) if isinstance(value, list) else value
