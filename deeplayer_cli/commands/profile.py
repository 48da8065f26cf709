"""What ``ground --profile`` tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.grounder import Grounder

_IDLE = ("wait for images", "rest")


@dataclass(frozen=True)
class Profile:
    """Where a run's time went.

    Attributes:
        seconds: by phase, one after the other; what belongs to none, such as writing rows, is the rest.
        worker_seconds: what the threads that prepare images took meanwhile, all together.
        device_idle: share of the time in which the device had nothing to do.
        rows_per_second: rows that were asked.
        tokens_per_second: tokens of answers.
        peak_bytes: the most memory in use, of the GPU where the model is on one, otherwise of the process.
    """

    seconds: dict[str, float]
    worker_seconds: dict[str, float]
    device_idle: float
    rows_per_second: float
    tokens_per_second: float
    peak_bytes: int

    @classmethod
    def of(cls, grounder: Grounder, rows: int, seconds: float) -> Profile:
        """Of a run that asked ``rows`` in some seconds."""
        from deeplayer_cli.checkpoints.memory import peak_bytes

        phases = dict(grounder.watch.seconds)
        phases["rest"] = seconds - sum(phases.values())
        return cls(
            seconds=phases,
            worker_seconds=grounder.effort.seconds,
            device_idle=sum(phases.get(name, 0.0) for name in _IDLE) / seconds,
            rows_per_second=rows / seconds,
            tokens_per_second=grounder.n_tokens / seconds,
            peak_bytes=peak_bytes(grounder.checkpoint.model.device),
        )

    def __str__(self) -> str:
        """One line, phases by their share."""
        total = sum(self.seconds.values())
        shares = [f"{name} {spent / total:.1%}" for name, spent in sorted(self.seconds.items(), key=lambda it: -it[1])]
        workers = " and ".join(f"{spent:.1f} s to {name}" for name, spent in self.worker_seconds.items())
        return (
            f"{', '.join(shares)}; device idle {self.device_idle:.1%}; threads took {workers}; "
            f"{self.rows_per_second:.2f} rows/s, {self.tokens_per_second:.1f} answer tokens/s; "
            f"peak memory {self.peak_bytes / 2**30:.1f} GiB"
        )
