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
            "source": entry.source,
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
    for heading in ("keeps", "after layer", "source"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(value or "-") for value in row.values()))
    show_table(table)
    for reason in broken.values():
        typer.echo(printable(reason))
