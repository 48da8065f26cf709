"""The smallest possible time of a piece of work on a device of given peak rates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeakRates:
    """Peak rates of a device.

    Attributes:
        flops: FLOPs per second, in the dtype of the run.
        bandwidth: memory bandwidth in bytes per second.
        bytes_per_number: size of a number; 2 for bfloat16.
    """

    flops: float
    bandwidth: float
    bytes_per_number: int


@dataclass(frozen=True)
class TimeLimit:
    """The smallest possible time of some work.

    Attributes:
        seconds: the time.
        bound: what takes most of it: ``compute``, ``weights`` (their reading) or ``kv cache`` (its reading).
    """

    seconds: float
    bound: str

    @classmethod
    def of_passes(cls, rates: PeakRates, n_passes: int, flops: float, weights: int, held: int) -> TimeLimit:
        """The limit of passes of ``flops`` in all, each of which reads ``weights`` and ``held`` bytes once."""
        compute, reading = flops / rates.flops, n_passes * (weights + held) / rates.bandwidth
        bound = "compute" if compute >= reading else "weights" if weights >= held else "kv cache"
        return cls(max(compute, reading), bound)

    def then(self, after: TimeLimit) -> TimeLimit:
        """The limit of this work and then other work."""
        longer = self if self.seconds >= after.seconds else after
        return TimeLimit(self.seconds + after.seconds, longer.bound)
