"""``deeplayer bench``."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from rich.table import Table

    from deeplayer_cli.bench import BenchPlan, Result, Spread
    from deeplayer_cli.checkpoints import Checkpoint


class Suite(StrEnum):
    """The suites of measurements."""

    PREFILL = "prefill"
    SHARE = "share"
    DECODE = "decode"
    SELECT = "select"
    E2E = "e2e"
    PIPELINE = "pipeline"
    ROOFLINE = "roofline"


def bench(
    context: typer.Context,
    suite: Annotated[Suite, typer.Argument(help="What to measure.")],
    model: options.Model = "random:mini",
    revision: options.Revision = None,
    yes: options.Yes = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    tiles: Annotated[str, option("--tiles", help="Numbers of tiles of the image, separated by commas.")] = "4,7",
    keep: Annotated[
        str, option("--keep", command="bench", help="Shares of visual tokens, separated by commas.")
    ] = "0.1",
    methods: Annotated[
        str, option("--methods", command="bench", help="Pruning methods of one drop, separated by commas.")
    ] = "deep-layer",
    layer: Annotated[
        int | None, option("--layer", command="bench", help="For roofline: the methods' layer; by default their own.")
    ] = None,
    expressions: Annotated[str, option("--expressions", help="Numbers of expressions, separated by commas.")] = "1,7",
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
    the tokens masked that the engine dropped. A case whose answers differ gets no speed.

    `roofline` runs no model: it computes the best possible times of a device with the given peak rates, at 2 bytes per
    number.
    """
    import torch

    from deeplayer_cli import checkpoints
    from deeplayer_cli.bench import SUITES, BenchPlan, measure

    plan = BenchPlan(
        _integers("--tiles", tiles),
        _shares(keep),
        _integers("--expressions", expressions),
        new_tokens,
        _methods(methods),
        layer,
    )
    options.agree_to_download(model, revision, yes=yes)
    if suite == Suite.ROOFLINE:
        options.warn_if_ignored(context, "roofline runs no model", "dtype", "device", "rounds", "threads")
        _roofline(model, revision, plan, tflops, bandwidth, json=json)
        return
    options.warn_if_ignored(context, f"{suite.value} measures this device", "layer", "tflops", "bandwidth")
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    cases = list(SUITES[suite.value](checkpoint, plan))
    results = list(measure(cases, rounds, checkpoint.model.device))
    circumstances = _circumstances(checkpoint, suite, rounds)
    if json:
        content = circumstances | {"cases": [_as_json(result) for result in results]}
        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        return

    from rich.console import Console

    from deeplayer_cli.report.tables import show_table

    show_table(_table(results))
    Console().print(", ".join(f"{name} {value}" for name, value in circumstances.items()))


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
    from deeplayer_cli.bench import PeakRates, roofline

    if tflops is None or bandwidth is None:
        raise DeeplayerError("a roofline needs the device's peak rates: give --tflops and --bandwidth")
    device = PeakRates(tflops * 1e12, bandwidth * 1e9, bytes_per_number=2)
    limits = list(roofline(checkpoints.read_layout(model, revision), plan, device))
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
        f"Best possible milliseconds for one expression about one image, {plan.n_new} answer tokens: one per pass "
        "(decode), or all drafts right (drafted). visual: number of visual tokens."
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


def _circumstances(checkpoint: Checkpoint, suite: Suite, rounds: int) -> dict[str, object]:
    import torch
    import transformers

    device = checkpoint.model.device
    return {
        "suite": suite.value,
        "model": checkpoint.name,
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _as_json(result: Result) -> dict[str, object]:
    return {
        "group": result.case.group,
        "case": result.case.name,
        "seconds": asdict(result.seconds),
        "speed": result.speed and asdict(result.speed),
        "fewer_flops": result.fewer_flops,
        "same_answers": result.speed is not None,
    }


def _table(results: list[Result]) -> Table:
    from deeplayer_cli.report.tables import plain_table

    table = plain_table()
    table.add_column("case")
    for heading in ("seconds", "least-most", "speed", "least-most", "FLOPs", "same"):
        table.add_column(heading, justify="right", no_wrap=True)
    group = None
    for result in results:
        if result.case.group != group:
            group = result.case.group
            table.add_row(f"[bold]{group}[/bold]")
        table.add_row(
            f"  {result.case.name}",
            *_spread(result.seconds, ".3g"),
            *(_spread(result.speed, ".2f") if result.speed else ("-", "-")),
            f"{result.fewer_flops:.2f}" if result.fewer_flops else "-",
            "yes" if result.speed else "NO",
        )
    return table


def _spread(spread: Spread, style: str) -> tuple[str, str]:
    return f"{spread.median:{style}}", f"{spread.least:{style}}-{spread.most:{style}}"
