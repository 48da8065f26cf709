"""``deeplayer calibrate``."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import INPUT, option
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

logger = logging.getLogger("deeplayer")


def calibrate(
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.", show_default=False)],
    output: Annotated[
        Path, option("--output", "-o", command="calibrate", help="Write the prior here, as safetensors.")
    ],
    overwrite: options.Overwrite = False,
    layer: Annotated[
        int, option("--layer", command="calibrate", help="Decoder layer, counted from 1, whose attention is averaged.")
    ] = 2,
    together: Annotated[
        bool,
        option("--together", help="One mean over all tiles and thumbnails, as in clawRxiv 2604.00591, instead of two."),
    ] = False,
    limit: Annotated[
        int | None,
        option("--limit", command="calibrate", min=1, help="Use the first N images only.", rich_help_panel=INPUT),
    ] = None,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    max_tiles: options.MaxTiles = None,
) -> None:
    """Average a model's attention at each position over images: the prior for `--method d2pruner --prior FILE`."""
    from itertools import islice

    from tqdm import tqdm

    from deeplayer_cli import checkpoints
    from deeplayer_cli.images.loader import open_in_time
    from deeplayer_cli.runtime import calibrate as calibration
    from deeplayer_cli.runtime.prior_file import save_prior
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.sinks.output_file import refuse_output
    from deeplayer_cli.sources.images import Images

    if not images.exists():
        raise DeeplayerError(f"{images} does not exist: give an image, or a folder of images")
    refuse_output(output, inputs=[images], overwrite=overwrite)
    settings = Settings(max_tiles=max_tiles)
    paths = list(islice(Images(images, ()).files(), limit))
    options.agree_to_download(model, revision, yes=yes)
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    checkpoint = replace(checkpoint, tiling=settings.tiling(checkpoint.tiling))
    used = 0

    def opened() -> Iterator[Image.Image]:
        nonlocal used
        for path in tqdm(paths, unit="image", disable=None, leave=False):
            try:
                image = open_in_time(path)
            except RowError as error:
                logger.warning("image left out: %s", error.message)
                continue
            used += 1
            yield image

    prior = calibration.calibrate(checkpoint, opened(), layer, together=together)
    save_prior(prior, output, checkpoint, used, together=together)
    logger.info("wrote %s: mean attention of layer %d over %s", output, layer, counted(used, "image"))
