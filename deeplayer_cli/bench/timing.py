"""Times cases in turn, round after round. So other load on the machine affects all cases alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deeplayer_cli.bench.limits import PeakRates, TimeLimit


@dataclass(frozen=True)
class Case:
    """One piece of work to time.

    Attributes:
        group: name of the group; its cases are compared with its first case.
        name: name of the case.
        run: does the work with the result of ``prepare`` and returns an outcome. Only this is timed.
        expected: computes the right outcome in an independent way; called once.
        times: factor of the measured time: so many runs do the same work as one run of the group's other cases.
        prepare: makes the input of one ``run``; called before every run.
        flops: FLOPs of the work, ``times`` included; None if unknown.
        limit: the smallest possible time of a run on a device of given peak rates; None if unknown.
    """

    group: str
    name: str
    run: Callable[[Any], object]
    expected: Callable[[], object]
    times: int = 1
    prepare: Callable[[], Any] = lambda: None
    flops: int | None = None
    limit: Callable[[PeakRates], TimeLimit] | None = None


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest value of several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """The result of a timed case.

    Attributes:
        case: the case.
        seconds: seconds per round.
        speed: seconds of the group's first case divided by those of this case, round by round; None if the outcome was
            wrong.
        equal: share of the outcome's tokens that are those of the right one.
        fewer_flops: FLOPs of the group's first case divided by those of this case: the speed that fewer FLOPs alone
            would give. None if unknown.
    """

    case: Case
    seconds: Spread
    speed: Spread | None
    equal: float
    fewer_flops: float | None


def measure(cases: Sequence[Case], rounds: int, device: torch.device, required: float = 1.0) -> Iterator[Result]:
    """Run every case once to warm up and to check its outcome; then time all cases in turn, ``rounds`` times.

    Args:
        cases: the cases; cases of one group follow each other.
        rounds: at least one.
        device: the device to wait for before the clock is read.
        required: the share of tokens that must be equal for an outcome to be right.
    """
    equal = [_equal(case.run(case.prepare()), case.expected()) for case in cases]
    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, taken in zip(cases, seconds, strict=True):
            taken.append(case.times * timed(case.run, case.prepare(), device))
    first: dict[str, tuple[Case, list[float]]] = {}
    for case, taken, share in zip(cases, seconds, equal, strict=True):
        base, base_taken = first.setdefault(case.group, (case, taken))
        speed = Spread.from_values([one / own for one, own in zip(base_taken, taken, strict=True)])
        fewer = base.flops / case.flops if base.flops and case.flops else None
        yield Result(case, Spread.from_values(taken), speed if share >= required else None, share, fewer)


def _equal(outcome: object, expected: object) -> float:
    """The share of equal leaves of two outcomes; 1 only if they are the same in everything."""
    if outcome == expected:
        return 1.0
    ours, theirs = list(_leaves(outcome)), list(_leaves(expected))
    same = sum(one == other for one, other in zip(ours, theirs, strict=False))
    return same / (max(len(ours), len(theirs)) + (same == len(ours) == len(theirs)))


def _leaves(outcome: object) -> Iterator[object]:
    if isinstance(outcome, (list, tuple)):
        for part in outcome:
            yield from _leaves(part)
    else:
        yield outcome


def timed(run: Callable[[Any], object], prepared: object, device: torch.device) -> float:
    """Seconds of ``run(prepared)`` until the device has finished."""
    _wait(device)
    begun = time.perf_counter()
    run(prepared)
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
