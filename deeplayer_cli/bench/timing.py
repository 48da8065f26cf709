"""Cases timed in turn, round after round, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        group: cases of one group are compared with the group's first.
        name: what is timed.
        run: does the work on what ``prepare`` made and returns its outcome.
        expected: what the outcome must be, from an independent way to it; asked once, untimed.
        times: how often the work would have to be done to do what the group's other cases do.
        prepare: makes anew, untimed, what ``run`` uses up.
        flops: floating-point operations of all ``times``, where they are known.
    """

    group: str
    name: str
    run: Callable[[Any], object]
    expected: Callable[[], object]
    times: int = 1
    prepare: Callable[[], Any] = lambda: None
    flops: int | None = None


@dataclass(frozen=True)
class Spread:
    """Median, least and most of several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """A timed case.

    Attributes:
        case: what was timed.
        seconds: per round.
        speed: times as fast as the group's first case, round by round; None where the outcome was wrong.
        fewer_flops: FLOPs of the group's first case over this one's: the speed that they alone would explain.
    """

    case: Case
    seconds: Spread
    speed: Spread | None
    fewer_flops: float | None


def measure(cases: Sequence[Case], rounds: int, device: torch.device) -> Iterator[Result]:
    """Run every case once to warm up and to check it, then all of them in turn, ``rounds`` times.

    Args:
        cases: groups follow each other.
        rounds: at least one.
        device: waited for before the clock is read.
    """
    right = [case.run(case.prepare()) == case.expected() for case in cases]
    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, taken in zip(cases, seconds, strict=True):
            taken.append(case.times * _time(case, device))
    first: dict[str, tuple[Case, list[float]]] = {}
    for case, taken, is_right in zip(cases, seconds, right, strict=True):
        base, base_taken = first.setdefault(case.group, (case, taken))
        speed = Spread.from_values([one / own for one, own in zip(base_taken, taken, strict=True)])
        fewer = base.flops / case.flops if base.flops and case.flops else None
        yield Result(case, Spread.from_values(taken), speed if is_right else None, fewer)


def _time(case: Case, device: torch.device) -> float:
    prepared = case.prepare()
    _wait(device)
    begun = time.perf_counter()
    case.run(prepared)
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
