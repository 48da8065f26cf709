"""``deeplayer compare``."""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplayer_cli.commands import cluster, options
from deeplayer_cli.commands.comparing import comparing, open_repeatable
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.method_list import read_keeps, settings_of, split_methods
from deeplayer_cli.commands.options import INPUT, OUTPUT, PRUNING, option
from deeplayer_cli.commands.outputs import Csv, refuse_bad_outputs
from deeplayer_cli.commands.printing import TextFormat, show_lines, show_splits
from deeplayer_cli.commands.requests import circumstances_of
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deeplayer_cli.evaluation.compare import MethodRun
    from deeplayer_cli.evaluation.matching import Unreachable
    from deeplayer_cli.runtime.turns import LoadModel
    from deeplayer_cli.schema import Prediction

_WITHOUT_A_RUN = {"from_", "reference", "by", "format_", "published", "csv", "plot", "overwrite", "json"}
"""The options that work with ``--from``, which reads results and runs nothing."""

logger = logging.getLogger("deeplayer")


class MatchBy(StrEnum):
    """The quantity that is equal for all methods of a comparison."""

    KEEP = "keep"
    MEAN_KEEP = "mean-keep"
    FLOPS = "flops"


def compare(
    context: typer.Context,
    source: Annotated[
        list[str] | None, typer.Argument(help="Requests with gold boxes, as `ground` takes them.", show_default=False)
    ] = None,
    methods: Annotated[
        str,
        option(
            "--methods",
            help="Names, separated by commas; `none` always runs. `deep-layer@layer=8` sets the layer of one method, "
            "`deep-layer@layer=1-7` runs it with each of these layers; `none@max-tiles=2` sets its number of tiles, "
            "`pyramiddrop@positions=renumber` its position ids, `NAME@PARAMETER=VALUE` a parameter of its own.",
            rich_help_panel=PRUNING,
        ),
    ] = "deep-layer,random",
    keep: Annotated[
        str | None,
        option(
            "--keep",
            command="compare",
            help="Shares of visual tokens, separated by commas; `0.1:0.5:0.1` is 0.1, 0.2, ... 0.5; `auto:P` keeps the "
            "share P of the attention. By default each method's own share.",
            rich_help_panel=PRUNING,
        ),
    ] = None,
    match: Annotated[
        MatchBy,
        option(
            "--match",
            help="`keep`: every method keeps --keep. `mean-keep`, `flops`: the first method keeps --keep; each other "
            "method keeps the share that makes its mean keep, which counts no scout, or its FLOPs, equal to the "
            "first's.",
            rich_help_panel=PRUNING,
        ),
    ] = MatchBy.KEEP,
    reference: Annotated[
        str, option("--reference", help="The method that the others are compared with, row by row.")
    ] = "none",
    layer: options.Layer = None,
    prior: options.Prior = None,
    limit: options.Limit = None,
    image_root: options.ImageRoot = None,
    from_format: options.FromFormat = None,
    box_format: options.BoxFormat = None,
    from_: Annotated[
        list[Path] | None,
        option(
            "--from",
            help="Compare the rows in this folder of an earlier --results, without a model; repeatable.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        option(
            "--results",
            help="Folder for the rows of all methods; the same command continues a stopped comparison.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    by: Annotated[
        str | None,
        option(
            "--by",
            help="Compare by a field of the rows or of their meta, such as `split`, or by several, as `dataset,split`: "
            "their values in columns, methods in lines, and the average.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        TextFormat, option("--format", help="How the table is printed.", rich_help_panel=OUTPUT)
    ] = TextFormat.TABLE,
    published: Annotated[
        str | None,
        option(
            "--published",
            help="Add published figures to a comparison by split; alone, print them. There is `deep-layer-paper`.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    csv: Csv = None,
    plot: Annotated[
        Path | None,
        option("--plot", help="Draw accuracy against cost into this .png, .svg or .pdf file.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: options.Overwrite = False,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    max_tiles: options.MaxTiles = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 32,
    image_timeout: options.ImageTimeout = 60.0,
    ray: cluster.Ray = None,
    num_workers: cluster.NumWorkers = None,
    gpus_per_worker: cluster.GpusPerWorker = None,
    cpus_per_worker: cluster.CpusPerWorker = 1.0,
    ship_images: cluster.ShipImages = False,
    json: options.Json = False,
) -> None:
    """Run several methods on the same rows with one model, and compare each with the reference, row by row."""
    from deeplayer_cli import evaluation
    from deeplayer_cli.evaluation.compare import require_gold
    from deeplayer_cli.evaluation.published_tables import beside, read_published
    from deeplayer_cli.evaluation.score import require_fields
    from deeplayer_cli.evaluation.splits import by_split, fields_in, namer

    if json and format_ is not TextFormat.TABLE:
        raise DeeplayerError(
            f"--json and --format {format_.value} both say how the table is printed: give one of the two"
        )
    refuse_bad_outputs(csv, plot, inputs=[*(source or []), *(from_ or [])], overwrite=overwrite)
    fields = fields_in(by) if by else []
    split_of = namer(fields) if by else None
    figures = read_published(published) if published else None
    if figures and not source and not from_:
        show_splits(figures.table, figures, format_, csv, json=json)
        return
    if figures and not by:
        raise DeeplayerError("--published needs --by, the fields that the splits are called after, as in dataset,split")
    if bool(source) == bool(from_):
        raise DeeplayerError("compare takes requests, or folders with --from: give one of the two")
    unreachable: list[Unreachable] = []
    if from_:
        _refuse_options_of_a_run(context)
        runs = _recorded(from_, fields, split_of)
    else:
        from deeplayer_cli.evaluation.matching import prunes
        from deeplayer_cli.evaluation.running import ComparisonPlan
        from deeplayer_cli.runtime.settings import Settings
        from deeplayer_cli.runtime.turns import LoadedModel

        resources = cluster.ray_resources(context)
        base = Settings(
            method="none",
            max_tiles=max_tiles,
            seed=seed,
            batch_size=batch_size,
            workers=None if ray is None else resources.threads,
            image_timeout=image_timeout,
        )
        wanted = [one for item in split_methods(methods) if (one := settings_of(item, base, layer, prior)) != base]
        if (idle := options.given(context, "keep", "layer")) and not any(map(prunes, wanted)):
            logger.warning("no method of --methods %s prunes, so they ignore %s", methods, ", ".join(idle))
        shares, adaptive = read_keeps(keep)
        plan = ComparisonPlan(base, wanted, shares, match.value, reference, adaptive)
        plan.refuse_impossible()
        source = source or []
        requests = open_repeatable(source, image_root, limit, from_format, box_format, results)
        require_gold(requests)
        require_fields((row for row in requests if row.gold is not None), fields)
        circumstances = circumstances_of(source, image_root, model, revision)
        options.agree_to_download(model, revision, yes=yes)
        load: LoadModel = LoadedModel.load
        if ray is not None:
            from deeplayer_cli.runtime.ray_turns import loading_on_ray

            load = context.with_resource(loading_on_ray(ray, resources, ship_images=ship_images))
        load_model = partial(load, model, revision=revision, dtype=dtype, device=device, prior=prior)
        with comparing(load_model, requests, source, circumstances, results, split_of) as (_, runner, show):
            runs, unreachable = plan.run(runner, show)
    compared_with = runs[evaluation.line_called(reference, [run.label for run in runs])]
    lines = evaluation.compare(runs, compared_with)
    for warning in [*compared_with.warnings, *dict.fromkeys(one for run in runs for one in run.failures)]:
        logger.warning(warning)
    if plot:
        from deeplayer_cli.report import tradeoff

        tradeoff.plot(lines, plot)
    if by:
        table = by_split(runs, compared_with, by)
        show_splits(beside(table, figures.table) if figures else table, figures, format_, csv, json=json)
    else:
        show_lines(lines, unreachable, reference, format_, csv, json=json)
    if failed := [f"{run.n_error} of {counted(run.n_rows, 'row')} under {run.label}" for run in runs if run.n_error]:
        logger.warning("error rows count as wrong if they have a gold box: %s", ", ".join(failed))
        raise typer.Exit(FINISHED_WITH_ERRORS)


def _recorded(
    folders: Sequence[Path], fields: Sequence[str], split_of: Callable[[Prediction], str] | None
) -> list[MethodRun]:
    """Read the runs in some folders; warn of files that are unfinished or were changed."""
    from deeplayer_cli import evaluation
    from deeplayer_cli.evaluation.score import require_fields
    from deeplayer_cli.sinks import read_predictions

    paths = evaluation.result_files(folders)
    for path in paths:
        for disagreement in evaluation.disagreements(path):
            logger.warning(disagreement)
    require_fields((row for path in paths for row in read_predictions(path, quiet=True)), fields)
    return evaluation.read_runs(folders, split_of)


def _refuse_options_of_a_run(context: typer.Context) -> None:
    """Refuse options that ``--from`` would ignore."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        is_given = given is not None and given.name == "COMMANDLINE" and parameter.param_type_name == "option"
        if is_given and parameter.name not in _WITHOUT_A_RUN:
            raise DeeplayerError(f"{parameter.opts[0]} applies to a run, and --from runs nothing: leave one out")
