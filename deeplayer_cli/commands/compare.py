"""``deeplayer compare``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import INPUT, PRUNING, option
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from deeplayer_cli.evaluation.compare import Line, Run
    from deeplayer_cli.grounder import Grounder
    from deeplayer_cli.schema import Prediction
    from deeplayer_cli.sources import Requests


def compare(
    source: Annotated[list[str], typer.Argument(help="Requests with gold boxes, as `ground` takes them.")],
    methods: Annotated[
        str,
        option("--methods", help="Names, separated by commas; `none` is always run.", rich_help_panel=PRUNING),
    ] = "deep-layer,random",
    keep: Annotated[
        str, option("--keep", help="Shares of visual tokens, separated by commas.", rich_help_panel=PRUNING)
    ] = "0.1",
    layer: options.Layer = None,
    limit: Annotated[int | None, option("--limit", min=1, help="The first N rows only.", rich_help_panel=INPUT)] = None,
    image_root: Annotated[
        Path | None,
        option("--image-root", help="Folder that relative image paths start from.", rich_help_panel=INPUT),
    ] = None,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    max_tiles: options.MaxTiles = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 8,
    json: options.Json = False,
) -> None:
    """Run several methods on the same rows with one loaded model, and compare each with no pruning, row by row."""
    from deeplayer_cli import checkpoints, evaluation, sources
    from deeplayer_cli.grounder import Grounder, Settings

    shares = [_share(text) for text in keep.split(",")]
    requests = sources.open_source(source, image_root=image_root, limit=limit)
    if not requests.repeatable:
        raise DeeplayerError("every method reads the rows anew, and a pipe can be read only once: give a file")
    sources.count_rows(requests)
    base = Settings(method="none", max_tiles=max_tiles, seed=seed, batch_size=batch_size)
    wanted = [
        replace(base, method=name, keep=share, layer=layer)
        for name in methods.split(",")
        if name != "none"
        for share in shares
    ]
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    grounders = [Grounder(checkpoint, settings) for settings in (base, *wanted)]
    runs = [_run(grounder, requests) for grounder in grounders]
    lines = evaluation.compare(runs, runs[0])
    if json:
        typer.echo(orjson.dumps([line.to_dict() for line in lines], option=orjson.OPT_INDENT_2))
        return

    from rich.console import Console

    console = Console()
    console.print(_table(lines))
    console.print(
        f"{len(runs[0].right)} rows with gold, {len(set(runs[0].images))} images; 95% intervals, clustered by image. "
        "mean: share of visual tokens seen, averaged over layers; methods compare fairly at equal mean only. kept, "
        "change and p: of accuracy, against none, paired by row. fails: rows without a box or in error. time: one "
        "method after the other, no benchmark."
    )


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DeeplayerError(f"--keep is shares separated by commas, such as 0.1,0.5, not {text!r}") from error


def _run(grounder: Grounder, requests: Requests) -> Run:
    from deeplayer_cli.commands.progress import Progress, Totals
    from deeplayer_cli.evaluation.compare import gather

    settings, method = grounder.settings, grounder.method
    with Progress(Totals(grounder.mean_keep), None) as progress:

        def predictions() -> Iterator[Prediction]:
            for prediction in grounder.ground(requests):
                progress.advance(prediction)
                yield prediction

        begun = time.perf_counter()
        keep = settings.keep if method.stages else 1.0
        run = gather(predictions(), method=method.name, keep=keep, layer=method.layer, n_layers=grounder.n_layers)
        return replace(run, seconds=time.perf_counter() - begun)


def _table(lines: list[Line]) -> Table:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("keep", "layer", "mean", "Acc@0.5", "kept", "change", "p", "fails", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        run, difference = line.run, line.difference
        table.add_row(
            escape(run.method),
            f"{run.keep:g}",
            "-" if run.layer is None else str(run.layer),
            "-" if run.mean_keep is None else f"{run.mean_keep:.1%}",
            f"{line.accuracy.value:.1%}\n[dim]{100 * line.accuracy.low:.0f}-{100 * line.accuracy.high:.0f}[/dim]",
            "-" if line.retained is None else f"{line.retained:.1%}",
            "-"
            if difference is None
            else f"{100 * difference.value:+.1f}\n[dim]{100 * difference.low:+.0f} {100 * difference.high:+.0f}[/dim]",
            "-" if difference is None else f"{difference.p:.2g}",
            str(run.n_no_box + run.n_error),
            f"x{line.relative_time:.2f}",
        )
    return table
