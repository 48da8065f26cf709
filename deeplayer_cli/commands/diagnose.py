"""``deeplayer diagnose``."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import INPUT, OUTPUT, option
from deeplayer_cli.commands.outputs import Csv, refuse_bad_outputs
from deeplayer_cli.commands.requests import open_requests
from deeplayer_cli.schema.values import counted

logger = logging.getLogger("deeplayer")


class ReadRows(StrEnum):
    """Query rows whose attention is read."""

    LAST = "last"
    TEXT = "text"
    DRAFTED = "drafted"


def diagnose(
    source: Annotated[
        list[str],
        typer.Argument(help="Requests, as `ground` takes them; gold boxes show what a prior does.", show_default=False),
    ],
    images: Annotated[
        int, option("--images", min=1, help="Use the rows about the first N images.", rich_help_panel=INPUT)
    ] = 100,
    query: Annotated[
        ReadRows,
        option(
            "--query",
            command="diagnose",
            help="Query rows whose attention is read: the last prompt token, the expression's tokens, or the last "
            "token of the drafted answer.",
        ),
    ] = ReadRows.LAST,
    keep: Annotated[
        float,
        option(
            "--keep",
            command="diagnose",
            help="Share of the visual tokens that a layer keeps, to measure what a prior does.",
        ),
    ] = 0.1,
    image_root: options.ImageRoot = None,
    from_format: options.FromFormat = None,
    box_format: options.BoxFormat = None,
    csv: Csv = None,
    plot: Annotated[
        Path | None,
        option(
            "--plot",
            help="Draw attention by place, and its correlations, into this .png, .svg or .pdf file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    max_tiles: options.MaxTiles = None,
    seed: Annotated[int, option("--seed", command="diagnose", min=0, help="Seed of the draws behind the bands.")] = 0,
    json: options.Json = False,
) -> None:
    """Test every layer's attention for positional bias, and whether dividing by a prior would help."""
    from tqdm import tqdm

    from deeplayer_cli import checkpoints
    from deeplayer_cli.pruning import Budget
    from deeplayer_cli.runtime.settings import Settings

    refuse_bad_outputs(csv, plot, inputs=source, overwrite=overwrite)
    settings, budget = Settings(method="none", max_tiles=max_tiles), Budget(keep)
    requests = open_requests(
        source,
        from_format=from_format,
        embedded=None,
        image_root=image_root,
        box_format=box_format.value if box_format else None,
    )

    from deeplayer_cli.evaluation import diagnosis
    from deeplayer_cli.evaluation.attention_maps import AttentionReader, first_images

    rows = first_images(requests, images)
    options.agree_to_download(model, revision, yes=yes)
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    reader = AttentionReader(checkpoint, settings, (query.value,), generic=True)
    read = tqdm(reader.read(rows), unit="image", disable=None, leave=False)
    found = diagnosis.diagnose(read, query.value, budget, seed=seed)
    if found.n_images < diagnosis.ENOUGH_IMAGES:
        logger.warning(
            "%s: the bands by chance need %d or more, so do not rely on what is said of positional bias",
            counted(found.n_images, "image"),
            diagnosis.ENOUGH_IMAGES,
        )
    if csv:
        from deeplayer_cli.report.lines import write_rows

        write_rows([layer.to_row() for layer in found.layers], csv)
    if plot:
        from deeplayer_cli.report import diagnosis_picture

        diagnosis_picture.plot(found, plot)
    if json:
        typer.echo(orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2))
        return
    from deeplayer_cli.report import diagnosis_table

    diagnosis_table.show(found)
