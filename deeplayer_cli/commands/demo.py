"""``deeplayer demo``: the small shipped model and the scenes that it was trained on."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import Query, example, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deeplayer_cli.demo.evaluate import Holding

logger = logging.getLogger("deeplayer")

app = typer.Typer(help="The small shipped model: its scenes, its accuracy and its training.", no_args_is_help=True)


class Split(StrEnum):
    """How hard the scenes are."""

    STANDARD = "standard"
    HARD = "hard"


FirstScene = Annotated[
    int,
    option("--seed", command="demo", min=0, help="Number of the first scene; the same number draws the same scene."),
]
SceneSplit = Annotated[
    Split, option("--split", help="`hard`: more and smaller objects, some overlapping, and relations of two steps.")
]


@app.command(epilog=example("demo scenes -o scenes --count 10"))
def scenes(
    output: Annotated[Path, option("--output", "-o", command="demo", help="Folder for the images and requests.jsonl.")],
    count: Annotated[int, option("--count", min=1, help="Number of scenes.")] = 24,
    seed: FirstScene = 0,
    split: SceneSplit = Split.STANDARD,
) -> None:
    """Draw scenes that the shipped model never saw, with requests and gold boxes."""
    from deeplayer_cli.demo import scenes as generator
    from deeplayer_cli.sinks.output_file import refuse_folder

    refuse_folder(output)
    generator.write(output, generator.HELD_OUT_SEEDS, seed, count, generator.SPLITS[split])


@app.command(epilog=example("demo evaluate --count 100 --split hard"))
def evaluate(
    context: typer.Context,
    count: Annotated[int, option("--count", min=1, help="Number of scenes, with about four requests each.")] = 500,
    seed: FirstScene = 0,
    split: SceneSplit = Split.STANDARD,
    model: options.Model = "demo",
    yes: options.Yes = False,
    device: options.Device = "auto",
    method: options.Method = "none",
    keep: options.KeepOrAuto = None,
    fallback: options.Fallback = None,
    layer: options.Layer = None,
    query: options.QueryRows = Query.LAST,
    by: Annotated[str, option("--by", help="Also score each value of this field separately.")] = "kind",
    json: options.Json = False,
) -> None:
    """Ground scenes that the shipped model never saw: how many boxes are right, and what the others contain."""
    from deeplayer_cli import evaluation
    from deeplayer_cli.commands.progress import ProgressBar
    from deeplayer_cli.demo.evaluate import HeldOutEvaluation
    from deeplayer_cli.pruning import find_method
    from deeplayer_cli.report import score_table
    from deeplayer_cli.runtime.grounder import Grounder
    from deeplayer_cli.runtime.run import RunProgress
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.runtime.totals import Totals
    from deeplayer_cli.sinks import read_predictions
    from deeplayer_cli.sinks.stream import Stream

    held_out = HeldOutEvaluation(split, seed, count)
    find_method(method)
    options.warn_of_idle_options(context)
    settings = Settings(method=method, layer=layer, query=query.value, fallback=fallback, **options.keep_settings(keep))
    options.agree_to_download(model, None, yes=yes)
    grounder = Grounder.load(model, device=device, settings=settings)
    totals = Totals(grounder.mean_keep)
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        predictions = Path(folder, "predictions.jsonl")
        with Stream(predictions) as writer, ProgressBar() as bar:
            bar.show(RunProgress(totals, None, None))
            for prediction in held_out.predictions(grounder):
                writer.write(prediction)
                totals.add(prediction)
                bar.show(RunProgress(totals, None, prediction))
        logger.info(totals.summary(time.perf_counter() - begun))
        report = evaluation.score(read_predictions(predictions), by=by)
    if json:
        typer.echo(orjson.dumps(report.to_dict() | {"held": held_out.held}, option=orjson.OPT_INDENT_2))
    else:
        score_table.show(report)
        _show_held(held_out.held)


def _show_held(held: Mapping[str, Mapping[Holding, int]]) -> None:
    from deeplayer_cli.demo.evaluate import HOLDINGS
    from deeplayer_cli.report.tables import plain_table, show_table

    table = plain_table(title="what the boxes contain")
    table.add_column("kind")
    for heading in HOLDINGS:
        table.add_column(heading, justify="right")
    for kind, counts in sorted(held.items()):
        rows = sum(counts.values())
        table.add_row(kind, *(f"{counts.get(heading, 0) / rows:.1%}" for heading in HOLDINGS))
    show_table(table)


@app.command(epilog=example("demo look --count 50"))
def look(
    count: Annotated[int, option("--count", min=1, help="Number of scenes, with up to four expressions each.")] = 100,
    seed: FirstScene = 0,
    split: SceneSplit = Split.STANDARD,
    model: options.Model = "demo",
    yes: options.Yes = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Show, layer by layer, how much of the attention to the image falls on the target object."""
    from rich.console import Console
    from rich.table import Table

    from deeplayer_cli import checkpoints
    from deeplayer_cli.demo.looking import looks
    from deeplayer_cli.demo.scenes import HELD_OUT_SEEDS, SPLITS, pick, scene
    from deeplayer_cli.report.tables import show_table

    scenes = (scene(number, SPLITS[split]) for number in pick(HELD_OUT_SEEDS, seed, count))
    options.agree_to_download(model, None, yes=yes)
    area, layers = looks(checkpoints.load(model, device=device), scenes)
    if json:
        lines = {"area": area, "layers": [asdict(one) for one in layers]}
        typer.echo(orjson.dumps(lines, option=orjson.OPT_INDENT_2))
        return
    table = Table("layer", "last prompt token", "before the first number")
    for one in layers:
        table.add_row(str(one.layer), f"{one.last:.1%}", f"{one.drafted:.1%}")
    show_table(table)
    Console().print(f"evenly spread attention would give {area:.1%}")


@app.command(epilog=example("demo train -o trained --seed 1"))
def train(
    output: Annotated[
        Path, option("--output", "-o", command="train", help="Folder for log, checkpoint and, at the end, model/.")
    ],
    vision_steps: Annotated[
        int, option("--vision-steps", min=0, help="Steps of the vision tower alone, before the language model joins.")
    ] = 3000,
    steps: Annotated[int, option("--steps", min=0, help="Steps of the whole model, on questions and answers.")] = 4000,
    seed: Annotated[
        int, option("--seed", command="train", min=0, help="Seed of the initial weights and of every random choice.")
    ] = 0,
    threads: Annotated[
        int | None, option("--threads", min=1, max=4096, help="CPU threads; by default torch's own choice.")
    ] = None,
    resume: Annotated[bool, option("--resume", command="train", help="Continue the run in the output folder.")] = False,
) -> None:
    """Train the demo model from scratch on the CPU; the defaults and --seed 1 give the shipped model."""
    import torch

    from deeplayer_cli.demo.export import export, refuse_model
    from deeplayer_cli.demo.train import Recipe
    from deeplayer_cli.demo.train import train as run_recipe
    from deeplayer_cli.sinks.output_file import refuse_folder

    refuse_folder(output)
    refuse_model(output / "model")
    if threads is not None:
        torch.set_num_threads(threads)
    run = run_recipe(output, Recipe(vision_steps, steps, seed=seed), resume=resume)
    export(run.model, run.tokens, output / "model")
    logger.info("trained: try --model %s", output / "model")
