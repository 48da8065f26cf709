"""``deeplayer bench``."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import option
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from rich.table import Table

    from deeplayer_cli.bench import BenchPlan, PeakRates, Result, Spread
    from deeplayer_cli.checkpoints import Checkpoint


_SOURCES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")  # of an option that somebody gave
_USUAL = {"tiles": "4,7", "expressions": "1,7", "methods": "deep-layer"}
_FOR_GPU = {"tiles": "1,7,13", "expressions": "1,7,15", "methods": "deep-layer,scout-focus"}


class Suite(StrEnum):
    """The suites of measurements."""

    PREFILL = "prefill"
    SHARE = "share"
    DECODE = "decode"
    SELECT = "select"
    E2E = "e2e"
    PIPELINE = "pipeline"
    PEER = "peer"
    GPU = "gpu"
    ROOFLINE = "roofline"


def bench(
    context: typer.Context,
    suite: Annotated[Suite, typer.Argument(help="What to measure.")],
    model: options.Model = "random:mini",
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    tiles: Annotated[
        str | None, option("--tiles", help="Numbers of tiles of the image; by default 4,7, for gpu 1,7,13.")
    ] = None,
    keep: Annotated[
        str, option("--keep", command="bench", help="Shares of visual tokens, separated by commas.")
    ] = "0.1",
    methods: Annotated[
        str | None,
        option(
            "--methods",
            command="bench",
            help="Pruning methods of one drop; by default deep-layer, for gpu scout-focus as well.",
        ),
    ] = None,
    layer: Annotated[
        int | None, option("--layer", command="bench", help="For roofline: the methods' layer; by default their own.")
    ] = None,
    expressions: Annotated[
        str | None,
        option("--expressions", help="Numbers of expressions; by default 1,7, for gpu 1,7,15, and 1,8,64 in decoding."),
    ] = None,
    new_tokens: Annotated[int, option("--new-tokens", min=1, help="Number of tokens of an answer.")] = 24,
    rounds: Annotated[int, option("--rounds", min=1, help="Number of rounds; each round times every case once.")] = 5,
    threads: Annotated[
        int | None, option("--threads", min=1, max=4096, help="Number of torch threads; by default torch's own choice.")
    ] = None,
    tflops: Annotated[
        float | None, option("--tflops", min=0.001, help="For roofline: the device's peak, in 10^12 FLOPs per second.")
    ] = None,
    bandwidth: Annotated[
        float | None, option("--bandwidth", min=0.001, help="For roofline: memory bandwidth, in 10^9 bytes per second.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Time the engine beside transformers' own generate(), and check that both give the same answers.

    The cases of a group run in turn, round after round, on one image of random pixels. Speed is relative to the first
    case. FLOPs is the speed that the saved FLOPs alone would give. `same`: the answers are those of generate(), with
    the tokens masked that the engine dropped. A case whose answers differ gets no speed. In 16 bits, kernels round
    differently: there an answer needs 80% of its tokens equal, and `same` gives the share.

    `gpu` is the whole table for a card, by default of random:8b: prefill, share, decode with 1, 8 and 64 rows, and e2e.
    Beside each time stands its share of the limit that the device's own large matrix product and copy allow, and what
    bounds that limit. `peer` is vLLM with the same weights, pictures and prompts.

    `roofline` runs no model: it computes the best possible times of a device with the given peak rates, at 2 bytes per
    number.
    """
    import torch

    from deeplayer_cli import checkpoints
    from deeplayer_cli.bench import BenchPlan, require_vllm

    usual = _FOR_GPU if suite == Suite.GPU else _USUAL
    if suite == Suite.GPU and not options.given(context, "model", by=_SOURCES):
        model = "random:8b"
    plan = BenchPlan(
        tiles=_integers("--tiles", usual["tiles"] if tiles is None else tiles),
        keeps=_shares(keep),
        expressions=_integers("--expressions", usual["expressions"] if expressions is None else expressions),
        n_new=new_tokens,
        methods=_methods(usual["methods"] if methods is None else methods),
        layer=layer,
        rows=_integers("--expressions", "1,8,64" if expressions is None else expressions),
    )
    if suite == Suite.PEER:
        require_vllm(model)
    if suite == Suite.GPU:
        _require_gpu(device)
    options.agree_to_download(model, revision, yes=yes)
    if suite == Suite.ROOFLINE:
        options.warn_if_ignored(context, "roofline runs no model", "dtype", "device", "rounds", "threads")
        _roofline(model, revision, plan, tflops, bandwidth, json=json)
        return
    options.warn_if_ignored(context, f"{suite.value} measures this device", "layer", "tflops", "bandwidth")
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    _measure(checkpoint, suite, plan, rounds, json=json)


def _measure(checkpoint: Checkpoint, suite: Suite, plan: BenchPlan, rounds: int, *, json: bool) -> None:
    from deeplayer_cli.bench import SUITES, gpu, measure, measure_rates, require_positions, required_share

    if suite != Suite.PIPELINE:  # it runs no model
        require_positions(checkpoint, checkpoint.model.config, plan)
    device, rates = checkpoint.model.device, None
    if suite == Suite.GPU:
        rates = measure_rates(device, checkpoint.model.dtype)
        results = list(gpu(checkpoint, plan, rounds))
    else:
        required = required_share(suite.value, checkpoint.model.dtype)
        results = list(measure(list(SUITES[suite.value](checkpoint, plan)), rounds, device, required))
    circumstances = _circumstances(checkpoint, suite, rounds, rates)
    if json:
        content = circumstances | {"cases": [_as_json(result, rates) for result in results]}
        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        return

    from rich.console import Console

    from deeplayer_cli.report.tables import show_table

    show_table(_table(results, rates))
    Console().print(", ".join(f"{name} {value}" for name, value in circumstances.items()))


def _require_gpu(device: str) -> None:
    import torch

    if device == "auto" and not torch.cuda.is_available():
        raise DeeplayerError(
            "bench gpu needs a CUDA device, and torch sees none here (`deeplayer doctor` says why): the same "
            "table of a CPU is `--device cpu --model random:mini --tiles 1 --expressions 1`"
        )


def _methods(text: str) -> tuple[str, ...]:
    """Read ``--methods``: names of methods that prune, without calibrated ones."""
    from deeplayer_cli.pruning import canonical_name, find_method

    names = tuple(canonical_name(name.strip()) for name in text.split(","))
    for name in names:
        if find_method(name)[0].is_calibrated:
            raise DeeplayerError(f"--methods {name}: it needs a prior, so bench cannot time it")
    return names


def _roofline(
    model: str, revision: str | None, plan: BenchPlan, tflops: float | None, bandwidth: float | None, *, json: bool
) -> None:
    from deeplayer_cli import checkpoints
    from deeplayer_cli.bench import PeakRates, require_positions, roofline

    if tflops is None or bandwidth is None:
        raise DeeplayerError("a roofline needs the device's peak rates: give --tflops and --bandwidth")
    device = PeakRates(tflops * 1e12, bandwidth * 1e9, bytes_per_number=2)
    layout = checkpoints.read_layout(model, revision)
    require_positions(layout, layout.config, plan)
    limits = list(roofline(layout, plan, device))
    if json:
        typer.echo(orjson.dumps([asdict(limit) for limit in limits], option=orjson.OPT_INDENT_2))
        return

    from rich.console import Console

    from deeplayer_cli.report.tables import plain_table, show_table

    table = plain_table()
    for heading in ("visual", "pruning", "vision", "prefill", "decode", "drafted", "KV MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for limit in limits:
        times = (limit.vision, limit.prefill, limit.decode, limit.drafted)
        milliseconds = [f"{1000 * seconds:.1f}" for seconds in times]
        table.add_row(str(limit.visual_tokens), limit.name, *milliseconds, f"{limit.kv_bytes / 1e6:.0f}")
    show_table(table)
    Console().print(
        f"Best possible milliseconds for one expression about one image, {counted(plan.n_new, 'answer token')}: one "
        "per pass (decode), or all drafts right (drafted). visual: number of visual tokens."
    )


def _integers(name: str, text: str) -> tuple[int, ...]:
    if not all(re.fullmatch("[1-9][0-9]{0,3}", part.strip(), re.ASCII) for part in text.split(",")):
        raise DeeplayerError(f"{name} must be integers from 1 to 9999, separated by commas, not {text!r}")
    return tuple(map(int, text.split(",")))


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise DeeplayerError(f"--keep must be shares separated by commas, such as 0.1,0.5, not {text!r}") from error


def _circumstances(checkpoint: Checkpoint, suite: Suite, rounds: int, rates: PeakRates | None) -> dict[str, object]:
    import torch
    import transformers

    from deeplayer_cli.device.checks import nvidia_driver

    device = checkpoint.model.device
    of_device: dict[str, object] = {}
    if device.type == "cuda":
        of_device = {"driver": nvidia_driver(), "cuda": torch.version.cuda}
    if rates is not None:
        of_device |= {"tflops": round(rates.flops / 1e12, 3), "bandwidth": round(rates.bandwidth / 1e9, 1)}
    return of_device | {
        "suite": suite.value,
        "model": checkpoint.name,
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),  # of the last minute: other work on the machine
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _as_json(result: Result, rates: PeakRates | None) -> dict[str, object]:
    limit = result.case.limit(rates) if rates and result.case.limit else None
    return {
        "group": result.case.group,
        "case": result.case.name,
        "seconds": asdict(result.seconds),
        "speed": result.speed and asdict(result.speed),
        "fewer_flops": result.fewer_flops,
        "same_answers": result.speed is not None,
        "equal_tokens": result.equal,
        "limit": limit and asdict(limit),
    }


def _table(results: list[Result], rates: PeakRates | None) -> Table:
    from deeplayer_cli.report.tables import plain_table

    table = plain_table()
    group = None
    for result in results:
        cells = _cells(result, rates)
        if not table.columns:
            table.add_column("case")
            for heading, _ in cells:
                table.add_column(heading, justify="right", no_wrap=True)
        if result.case.group != group:
            group = result.case.group
            table.add_row(f"[bold]{group}[/bold]")
        table.add_row(f"  {result.case.name}", *(text for _, text in cells))
    return table


def _cells(result: Result, rates: PeakRates | None) -> list[tuple[str, str]]:
    """Headings and texts of a result; with ``rates``, the share of the limit takes the place of the ranges."""
    seconds, seconds_range = _spread(result.seconds, ".3g")
    speed, speed_range = _spread(result.speed, ".2f") if result.speed else ("-", "-")
    flops = f"{result.fewer_flops:.2f}" if result.fewer_flops else "-"
    same = "yes" if result.equal == 1 else f"{result.equal:.0%}" if result.speed else "NO"
    if rates is None:
        ranges = [("least-most", seconds_range), ("speed", speed), ("least-most", speed_range)]
        return [("seconds", seconds), *ranges, ("FLOPs", flops), ("same", same)]
    limit = result.case.limit(rates) if result.case.limit else None
    share = f"{limit.seconds / result.seconds.median:.0%}" if limit else "-"
    rest = [("limit", share), ("bound", limit.bound if limit else "-")]
    return [("seconds", seconds), ("speed", speed), ("FLOPs", flops), ("same", same), *rest]


def _spread(spread: Spread, style: str) -> tuple[str, str]:
    return f"{spread.median:{style}}", f"{spread.least:{style}}-{spread.most:{style}}"
