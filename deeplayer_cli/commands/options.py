"""Options that several commands share. An environment variable named after the flag also sets each option."""

from __future__ import annotations

import logging
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Collection

logger = logging.getLogger("deeplayer")


class Query(StrEnum):
    """Query rows whose attention scores the visual tokens."""

    LAST = "last"
    TEXT = "text"


class PositionIds(StrEnum):
    """What later layers do with position ids after a drop."""

    KEEP = "keep"
    RENUMBER = "renumber"
    PUBLISHED = "published"


class Sharing(StrEnum):
    """What the expressions about one image share."""

    EACH = "each"
    UNION = "union"
    OFF = "off"


class Kernel(StrEnum):
    """Implementations of scaled dot-product attention."""

    AUTO = "auto"
    FLASH = "flash"
    EFFICIENT = "efficient"
    CUDNN = "cudnn"
    MATH = "math"


class BoxFormatName(StrEnum):
    """Formats of the four numbers of a box, see `deeplayer_cli.boxes.BoxFormat`."""

    XYXY = "xyxy"
    XYWH = "xywh"
    CXCYWH = "cxcywh"
    PER_MILLE = "per-mille"
    UNIT = "unit"


def option(flag: str, *more: str, command: str = "", **settings: Any) -> Any:
    """Make a Typer option ``flag`` that the environment variable ``DEEPLAYER_FLAG`` also sets.

    Args:
        flag: its name.
        more: its other names.
        command: makes the variable ``DEEPLAYER_COMMAND_FLAG``, where the flag means something else than in `ground`.
        settings: of the option, for Typer.
    """
    name = "_".join(filter(None, (command, flag.split("/")[0].lstrip("-")))).replace("-", "_").upper()
    return typer.Option(flag, *more, envvar=f"DEEPLAYER_{name}", **{"callback": _refuse_huge, **settings})


def _refuse_huge(parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse an integer that does not fit into 64 bits: torch, orjson and the system take no larger ones."""
    if isinstance(value, int) and not -sys.maxsize <= value <= sys.maxsize:
        raise typer.BadParameter(f"{parameter.opts[0]} must be between {-sys.maxsize} and {sys.maxsize}")
    if value is None and parameter.multiple:
        return ()  # typer up to 0.15 takes the length of what a callback returns
    return value


def example(arguments: str) -> str:
    """Return the last paragraph of a command's help: an example of it."""
    return f"Example: `deeplayer {arguments}`"


def layers_in(flag: str, text: str) -> list[int]:
    """Read layers such as ``2,4,6`` or ``1-7``; sorted, each once.

    Raises:
        DeeplayerError: the text, the value of ``flag``, is something else.
    """
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", part, re.ASCII)
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise DeeplayerError(f"{flag} must be numbers of layers such as 2,4,6 or 1-7, not {text!r}")
        found.update(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return sorted(found)


def agree_to_download(model: str, revision: str | None, *, yes: bool) -> None:
    """On a terminal, ask before a model is downloaded; elsewhere, or with ``--yes``, do nothing.

    Raises:
        DeeplayerError: the answer is no; or see `deeplayer_cli.checkpoints.pending_download`.
    """
    if yes or sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    from deeplayer_cli.checkpoints import pending_download

    download = pending_download(model, revision)
    if download is None:
        return
    download.require_disk()
    if not typer.confirm(f"download {download}?", err=True):
        raise DeeplayerError(f"{model} was not downloaded: use --model demo, which needs no download, or a folder")


def given(context: typer.Context, *names: str, by: Collection[str] = ("COMMANDLINE", "ENVIRONMENT")) -> list[str]:
    """Return the flags of those options ``names`` that the command line or the environment sets."""
    sources = {name: context.get_parameter_source(name) for name in names}
    named = [name for name, source in sources.items() if source and source.name in by]
    return [f"--{name.replace('_', '-')}" for name in named]


def warn_if_ignored(context: typer.Context, reason: str, *names: str) -> None:
    """Log a warning about those options ``names`` of the command line that have no effect, with the reason.

    A variable or a file sets an option for all commands that have it, so these are not spoken of.
    """
    if ignored := given(context, *names, by=("COMMANDLINE",)):
        logger.warning("%s, so %s %s no effect", reason, ", ".join(ignored), "has" if len(ignored) == 1 else "have")


def warn_of_idle_options(context: typer.Context) -> None:
    """Log a warning about options that have no effect with the chosen ``--method``, or beside another option."""
    idle = given(context, "keep", "keep_tokens", "layer", "query", "positions", "fallback")
    if not idle:
        return
    from deeplayer_cli.pruning import find_method

    method = context.params["method"]
    entry = find_method(method)[0]
    if not entry.prunes:
        ignored = [flag for flag in idle if flag not in ("--layer", "--fallback") or not entry.has_layer]
        if ignored:
            logger.warning("--method %s prunes nothing, so it ignores %s", method, ", ".join(ignored))
    elif {"--keep", "--keep-tokens"} <= set(idle):
        logger.warning("--keep-tokens replaces --keep, so --keep is ignored")


def keep_settings(text: str | None) -> dict[str, Any]:
    """Read ``--keep``, a share, ``auto:P`` or ``auto:P:LEAST:MOST``, as fields of ``Settings``; none if not given.

    Raises:
        DeeplayerError: the text is none of them.
    """
    if text is None:
        return {}
    numbers = text.removeprefix("auto:").split(":")
    names = ("keep_mass", "keep_least", "keep_most")[: len(numbers)] if text.startswith("auto:") else ("keep",)
    try:
        if len(numbers) == 2:
            raise ValueError(text)
        return dict(zip(names, map(float, numbers), strict=True))
    except ValueError:
        raise DeeplayerError(
            "--keep must be a share, such as 0.1, or auto:P or auto:P:LEAST:MOST, such as auto:0.9 or "
            f"auto:0.9:0.02:0.3, not {text!r}"
        ) from None


MODEL, PRUNING, INPUT, OUTPUT, SPEED, CLUSTER = "Model", "Pruning", "Input", "Output", "Speed", "Cluster"

Model = Annotated[
    str,
    option("--model", help="Hub name, local folder, `demo`, or `random:8b` (random weights).", rich_help_panel=MODEL),
]
Revision = Annotated[
    str | None, option("--revision", help="Branch, tag or commit of a hub model.", rich_help_panel=MODEL)
]
Yes = Annotated[bool, option("--yes", "-y", help="Download a model without asking.", rich_help_panel=MODEL)]
Dtype = Annotated[
    str,
    option(
        "--dtype", help="`auto` (bfloat16 on a GPU, float32 on a CPU), bf16, fp16, fp32 or fp64.", rich_help_panel=MODEL
    ),
]
Device = Annotated[str, option("--device", help="`auto`, cpu, mps, cuda or cuda:N.", rich_help_panel=MODEL)]
Attention = Annotated[
    Kernel,
    option("--attention", help="Attention kernel to prefer; `auto` chooses for each call.", rich_help_panel=MODEL),
]
Method = Annotated[
    str,
    option(
        "--method",
        help="Pruning method; `deeplayer methods` lists them. `NAME@PARAMETER=VALUE` sets a parameter of the method.",
        rich_help_panel=PRUNING,
    ),
]
KeepOrAuto = Annotated[
    str | None,
    option(
        "--keep",
        help="Share of the visual tokens to keep, over all tiles; or `auto:P`: the fewest tokens that hold the share P "
        "of the attention to the image; or `auto:P:LEAST:MOST`: the same between two shares of the tokens. By default "
        "0.1, or the method's own share.",
        rich_help_panel=PRUNING,
    ),
]
Fallback = Annotated[
    float | None,
    option(
        "--fallback",
        help="Ask a row again without pruning if its score is below this, or if it has no box.",
        rich_help_panel=PRUNING,
    ),
]
KeepTokens = Annotated[
    int | None,
    option("--keep-tokens", help="Number of visual tokens to keep, instead of --keep.", rich_help_panel=PRUNING),
]
Layer = Annotated[
    int | None,
    option(
        "--layer",
        help="Decoder layer, counted from 1, after which tokens are dropped; by default the method's.",
        rich_help_panel=PRUNING,
    ),
]
QueryRows = Annotated[
    Query,
    option(
        "--query",
        help="Query rows whose attention scores the visual tokens: `last`, the last prompt token, or `text`, the mean "
        "over the expression's tokens.",
        rich_help_panel=PRUNING,
    ),
]
Positions = Annotated[
    PositionIds,
    option(
        "--positions",
        help="Position ids after a drop: `keep` those of the whole prompt, `renumber` without gaps, or `published`: "
        "what the method's authors do.",
        rich_help_panel=PRUNING,
    ),
]
Prior = Annotated[
    Path | None,
    option("--prior", help="Prior file for d2pruner, made by `deeplayer calibrate`.", rich_help_panel=PRUNING),
]
Seed = Annotated[int, option("--seed", min=0, help="Seed of methods that choose at random.", rich_help_panel=PRUNING)]
MaxTiles = Annotated[
    int | None,
    option(
        "--max-tiles",
        help="The most tiles of an image, without the thumbnail; by default the model's own number (6 for InternVL).",
        rich_help_panel=MODEL,
    ),
]
MaxNewTokens = Annotated[int, option("--max-new-tokens", help="Longest answer, in tokens.", rich_help_panel=MODEL)]
Share = Annotated[
    Sharing,
    option(
        "--share",
        help="The layers before the drop run once for each image. The later layers run for `each` expression, or once "
        "for the `union` of the tokens that the expressions keep, which changes answers. `off`: nothing is shared.",
        rich_help_panel=SPEED,
    ),
]
BatchSize = Annotated[
    int, option("--batch-size", max=4096, help="The most prompts in one forward pass.", rich_help_panel=SPEED)
]
BatchTokens = Annotated[
    int | None,
    option(
        "--batch-tokens",
        help="The most prompt tokens in one forward pass; by default as many as free memory allows.",
        rich_help_panel=SPEED,
        show_default=False,
    ),
]
Compile = Annotated[
    bool | None,
    option(
        "--compile/--no-compile",
        help="Compile selection and the layers over expressions and answers with torch.compile; by default on CUDA.",
        rich_help_panel=SPEED,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    option("--workers", help="Threads that read images; by default one per core, at most 8.", rich_help_panel=SPEED),
]
Expressions = Annotated[
    list[str] | None,
    typer.Option(  # no environment variable: it could not separate sentences safely
        "--expression",
        "-e",
        help="Expression for every image: `the dog` or `label=the dog`; `@FILE`: one a line; repeatable.",
        rich_help_panel=INPUT,
    ),
]
FromFormat = Annotated[
    str | None,
    option(
        "--from-format",
        help="The sources are files of another format: `auto` recognises it; or flickr30k, parquet, refer, vlmevalkit, "
        "internvl, coco, labelstudio, jsonl, json, csv. Images are searched below --image-root.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
ImageRoot = Annotated[
    Path | None,
    option("--image-root", help="Folder that relative image paths start from.", rich_help_panel=INPUT),
]
Limit = Annotated[int | None, option("--limit", min=1, help="Use the first N rows only.", rich_help_panel=INPUT)]
BoxFormat = Annotated[
    BoxFormatName | None,
    option(
        "--box-format",
        help="How gold boxes are written: `xyxy`, `xywh` or `cxcywh` in pixels; corners in thousandths (`per-mille`) "
        "or fractions (`unit`) of the image. By default `xyxy`, and boxes that cannot be that are refused.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
Output = Annotated[
    Path | None, option("--output", "-o", help="Write rows here instead of to stdout (`-`).", rich_help_panel=OUTPUT)
]
Overwrite = Annotated[bool, option("--overwrite", help="Replace an output file that exists.", rich_help_panel=OUTPUT)]
Json = Annotated[bool, option("--json", help="Print JSON instead of a table.")]
ImageTimeout = Annotated[
    float,
    option(
        "--image-timeout",
        help="Seconds that an image may take to decode; one that takes longer becomes an error row.",
        rich_help_panel=SPEED,
    ),
]
