"""``deeplayer demo``: the small shipped model and the scenes that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplayer_cli.commands.options import option

app = typer.Typer(help="The small shipped model: its scenes and its training.", no_args_is_help=True)


@app.command()
def scenes(
    output: Annotated[Path, option("--output", "-o", help="Folder for the images and requests.jsonl.")],
    count: Annotated[int, option("--count", min=1, help="Number of scenes.")] = 24,
    seed: Annotated[
        int, option("--seed", min=0, help="The first scene's number; the same seed draws the same scenes.")
    ] = 0,
) -> None:
    """Draw scenes that the shipped model never saw, with requests and gold boxes."""
    from deeplayer_cli.demo import scenes as generator

    generator.write(output, count, seed)
