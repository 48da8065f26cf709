"""``deeplayer methods``."""

from __future__ import annotations

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.errors import printable


def methods(json: options.Json = False) -> None:
    """List the pruning methods: what each keeps, after which layer, and its source."""
    from deeplayer_cli.pruning import broken_methods, known_methods

    rows = [
        {
            "name": name,
            "keeps": entry.summary,
            "layer": entry.after,
            "positions": entry.positions,
            "source": entry.source,
            "parameters": {
                key: {"default": one.default, "allowed": one.allowed, "about": one.about}
                for key, one in entry.parameters.items()
            },
        }
        for name, entry in known_methods().items()
    ]
    broken = broken_methods()
    if json:
        rows += [{"name": name, "error": reason} for name, reason in broken.items()]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return

    from rich.markup import escape

    from deeplayer_cli.report.tables import plain_table, show_table

    table = plain_table()
    table.add_column("method", no_wrap=True)
    table.add_column("keeps")
    table.add_column("after layer", width=len("calibrated"))
    table.add_column("authors' position ids", width=len("renumber"))
    table.add_column("source", min_width=len("arXiv:2506.10967."))
    for name, entry in known_methods().items():
        cells = [name, entry.summary, entry.after, entry.positions, entry.source]
        table.add_row(*(escape(cell or "-") for cell in cells))
        for key, one in entry.parameters.items():
            table.add_row("", escape(f"@{key}={one.default}: {one.about}; {one.allowed}"), "", "", "")
    show_table(table)
    for reason in broken.values():
        typer.echo(printable(reason))
