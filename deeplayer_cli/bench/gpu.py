"""The whole table for one device: prefill, share, decode and end to end."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.bench.limits import PeakRates
from deeplayer_cli.bench.suites import SUITES, required_share
from deeplayer_cli.bench.timing import measure, timed
from deeplayer_cli.device.failures import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeplayer_cli.bench.suites import BenchPlan
    from deeplayer_cli.bench.timing import Result
    from deeplayer_cli.checkpoints import Checkpoint

_TRIES = 10
_PROBES = {"cuda": (8192, 2**30), "mps": (4096, 2**28), "cpu": (1024, 2**26)}  # side of the product, bytes of the copy

logger = logging.getLogger("deeplayer")


def gpu(checkpoint: Checkpoint, plan: BenchPlan, rounds: int) -> Iterator[Result]:
    """Run the suites for every number of tiles, expressions and rows, one after the other.

    What does not fit into the device's memory is left out, with a line on stderr.

    Args:
        checkpoint: the model.
        plan: numbers of tiles, expressions and rows, methods and keeps.
        rounds: as for `measure`.

    Returns:
        The results; the name of a group begins with that of its suite.
    """
    several = tuple(n for n in plan.expressions if n > 1)
    sizes = {"prefill": (1,), "share": several, "decode": plan.rows, "e2e": plan.expressions}
    for n_tiles in plan.tiles:
        for suite, numbers in sizes.items():
            for n in numbers:
                part = replace(plan, tiles=(n_tiles,), expressions=(n,))
                for result in _measured(checkpoint, suite, part, rounds):
                    yield replace(result, case=replace(result.case, group=f"{suite}, {result.case.group}"))


def measure_rates(device: torch.device, dtype: torch.dtype) -> PeakRates:
    """Measure what a device reaches: the FLOPs of a large matrix product, and the bytes of a large copy.

    Args:
        device: the device.
        dtype: dtype of the numbers.
    """
    side, n_bytes = _PROBES[device.type]
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    source = torch.zeros(n_bytes, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    product = min(timed(lambda _: matrix @ matrix, None, device) for _ in range(_TRIES))
    copy = min(timed(lambda _: target.copy_(source), None, device) for _ in range(_TRIES))
    return PeakRates(2 * side**3 / product, 2 * n_bytes / copy, dtype.itemsize)


def _measured(checkpoint: Checkpoint, suite: str, plan: BenchPlan, rounds: int) -> list[Result]:
    device, required = checkpoint.model.device, required_share(suite, checkpoint.model.dtype)
    try:
        return list(measure(list(SUITES[suite](checkpoint, plan)), rounds, device, required))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the ``except`` block, so that the tensors of the failed run are free.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    (n_tiles,), (n,) = plan.tiles, plan.expressions
    logger.warning(
        "%s of %d tiles and %d expressions left out: it does not fit into the memory of %s", suite, n_tiles, n, device
    )
    return []
