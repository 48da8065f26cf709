"""``deeplayer sweep``."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.comparing import comparing, open_repeatable
from deeplayer_cli.commands.exit_codes import FINISHED_WITH_ERRORS
from deeplayer_cli.commands.options import INPUT, OUTPUT, PRUNING, Query, option
from deeplayer_cli.commands.outputs import Csv, refuse_bad_outputs
from deeplayer_cli.commands.requests import circumstances_of
from deeplayer_cli.errors import DeeplayerError, did_you_mean
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from deeplayer_cli.schema import Id
    from deeplayer_cli.sources import Requests

logger = logging.getLogger("deeplayer")


def sweep(
    source: Annotated[
        list[str], typer.Argument(help="Requests with gold boxes, as `ground` takes them.", show_default=False)
    ],
    layers: Annotated[
        str | None,
        option(
            "--layers",
            help="Layers to prune after, counted from 1, separated by commas; by default up to 8, evenly spaced.",
            rich_help_panel=PRUNING,
            show_default=False,
        ),
    ] = None,
    method: options.Method = "deep-layer",
    keep: Annotated[
        float | None,
        option(
            "--keep",
            command="sweep",
            help="Share of the visual tokens to keep; by default the method's own share.",
            rich_help_panel=PRUNING,
            show_default=False,
        ),
    ] = None,
    query: options.QueryRows = Query.LAST,
    select_on: Annotated[
        str | None,
        option(
            "--select-on",
            help="`FIELD=VALUE`: choose the layer on the rows with this value, of the row or of its meta. Without "
            "--select-on and --report-on, half of the images choose and the others report.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    report_on: Annotated[
        str | None,
        option(
            "--report-on",
            help="`FIELD=VALUE`: report the chosen layer's accuracy on the rows with this value.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int,
        option("--images", min=1, help="Measure attention on the first N selection images.", rich_help_panel=INPUT),
    ] = 100,
    limit: options.Limit = None,
    image_root: options.ImageRoot = None,
    from_format: options.FromFormat = None,
    box_format: options.BoxFormat = None,
    results: Annotated[
        Path | None,
        option(
            "--results",
            help="Folder for the rows of all layers; the same command continues a stopped sweep.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    csv: Csv = None,
    plot: Annotated[
        Path | None,
        option(
            "--plot", help="Draw accuracy and attention by layer into this .png, .svg or .pdf.", rich_help_panel=OUTPUT
        ),
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
    json: options.Json = False,
) -> None:
    """Prune after one layer after the other, choose the best layer on some rows, and report its accuracy on others."""
    from deeplayer_cli.evaluation.compare import require_gold
    from deeplayer_cli.runtime.settings import Settings

    refuse_bad_outputs(csv, plot, inputs=source, overwrite=overwrite)
    numbers = None if layers is None else options.layers_in("--layers", layers)
    common: dict[str, Any] = {"max_tiles": max_tiles, "seed": seed, "batch_size": batch_size}
    base = Settings(method="none", **common)
    own_share: dict[str, Any] = {} if keep is None else {"keep": keep}
    pruned = Settings(method=method, query=query.value, **own_share, **common)
    requests = open_repeatable(source, image_root, limit, from_format, box_format, results)
    require_gold(requests)
    select, report = (_rows_with(requests, flag, text) for flag, text in (("select", select_on), ("report", report_on)))

    from deeplayer_cli.evaluation.sweep import choose_layer, split_rows
    from deeplayer_cli.evaluation.sweeping import layer_settings, measure_selection
    from deeplayer_cli.report import sweep_table
    from deeplayer_cli.runtime.turns import LoadedModel
    from deeplayer_cli.schema import Request

    # An impossible split is refused before hours of work; in the end, the content of the images decides.
    golden = {row.id: row.path for row in requests if isinstance(row, Request) and row.gold is not None}
    planned = split_rows(golden, select, report, seed=seed)
    if planned.n_left_out:
        logger.warning(
            "%s in neither set: every layer answers them too, and nothing uses them; a source without them is faster",
            counted(planned.n_left_out, "row"),
        )
    for name, ids in (("selection", planned.select), ("report", planned.report)):
        if len({golden[row] for row in ids}) == 1:
            logger.warning("all %s rows are about one image, so their intervals mean little: give more images", name)
    circumstances = circumstances_of(source, image_root, model, revision)
    options.agree_to_download(model, revision, yes=yes)
    load_model = partial(LoadedModel.load, model, revision=revision, dtype=dtype, device=device)
    with comparing(load_model, requests, source, circumstances, results) as (loaded, runner, show):
        by_layer = layer_settings(runner, pruned, numbers)
        unpruned, *runs = runner.run([base, *by_layer.values()], show)
    for warning in [*unpruned.warnings, *dict.fromkeys(one for run in runs for one in run.failures)]:
        logger.warning(warning)
    split = split_rows(dict(zip(unpruned.ids, unpruned.images, strict=True)), select, report, seed=seed)
    choice = choose_layer(dict(zip(by_layer, runs, strict=True)), unpruned, split, seed=seed)
    measured = measure_selection(loaded, pruned, requests, split, images)
    rows = sweep_table.rows_of(choice, measured)
    if csv:
        from deeplayer_cli.report.lines import write_rows

        write_rows(rows, csv)
    if plot:
        from deeplayer_cli.report import sweep_picture

        sweep_picture.plot(choice, measured, plot)
    if json:
        told = sweep_table.to_dict(choice, measured, split)
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    else:
        sweep_table.show(choice, measured, split)
    if n_error := max(run.n_error for run in (unpruned, *runs)):
        logger.warning(
            "error rows count as wrong if they have a gold box: up to %d of %s",
            n_error,
            counted(unpruned.n_rows, "row"),
        )
        raise typer.Exit(FINISHED_WITH_ERRORS)


def _rows_with(requests: Requests, flag: str, text: str | None) -> frozenset[Id] | None:
    """The ids of the rows that ``FIELD=VALUE`` describes; None without a text."""
    from deeplayer_cli.evaluation.score import NO_VALUE, group_name, no_such_field, own_fields

    if text is None:
        return None
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise DeeplayerError(f"--{flag}-on must be FIELD=VALUE, such as split=val, not {text!r}")
    values: dict[str, list[Id]] = {}
    fields: dict[str, None] = {}
    for row in requests:
        fields |= own_fields(row)
        values.setdefault(group_name(row, field), []).append(row.id)
    if value not in values:
        known = sorted(values.keys() - {NO_VALUE})
        others = f"no row has this value; its values are {', '.join(known[:10])}{did_you_mean(value, known)}"
        raise DeeplayerError(f"--{flag}-on {text}: {others if known else no_such_field(field, fields)}")
    return frozenset(values[value])
