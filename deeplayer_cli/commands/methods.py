"""``deeplayer methods``."""

from __future__ import annotations

import orjson
import typer

from deeplayer_cli.commands import options


def methods(json: options.Json = False) -> None:
    """List the pruning methods: what each keeps, after which layer, and its source."""
    from deeplayer_cli.pruning import known_methods

    rows = [
        {
            "name": name,
            "keeps": entry.summary,
            "layer": entry.after,
            "source": entry.source,
        }
        for name, entry in known_methods().items()
    ]
    if json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return

    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("keeps", "after layer", "source"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(value or "-") for value in row.values()))
    Console().print(table)
