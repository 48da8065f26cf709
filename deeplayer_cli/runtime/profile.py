"""Where the time of a run went, as ``ground --profile`` reports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.device.memory import peak_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_IDLE = ("wait for images", "rest")


@dataclass(frozen=True)
class Profile:
    """Where a run's time went.

    Attributes:
        seconds: by phase; phases do not overlap, and ``rest`` is outside of all phases, such as writing rows.
        worker_seconds: seconds of the threads that prepare images, by step, summed over threads.
        device_idle: share of the time in which the device had no work.
        rows_per_second: answered rows per second.
        tokens_per_second: answer tokens per second.
        peak_bytes: peak memory use, of the GPU if the model is on one, otherwise of the process.
    """

    seconds: dict[str, float]
    worker_seconds: dict[str, float]
    device_idle: float
    rows_per_second: float
    tokens_per_second: float
    peak_bytes: int

    @classmethod
    def from_run(
        cls,
        phases: Mapping[str, float],
        worker_seconds: Mapping[str, float],
        n_tokens: int,
        rows: int,
        seconds: float,
        device: torch.device,
    ) -> Profile:
        """Make the profile of a run.

        Args:
            phases: seconds by phase; phases do not overlap.
            worker_seconds: seconds of the threads that prepare images, by step.
            n_tokens: number of answer tokens.
            rows: number of answered rows.
            seconds: of the whole run.
            device: of the model.
        """
        by_phase = {**phases, "rest": seconds - sum(phases.values())}
        return cls(
            seconds=by_phase,
            worker_seconds=dict(worker_seconds),
            device_idle=sum(by_phase.get(name, 0.0) for name in _IDLE) / seconds,
            rows_per_second=rows / seconds,
            tokens_per_second=n_tokens / seconds,
            peak_bytes=peak_bytes(device),
        )

    def __str__(self) -> str:
        """Return one line; phases come in the order of their share."""
        total = sum(self.seconds.values())
        shares = [f"{name} {spent / total:.1%}" for name, spent in sorted(self.seconds.items(), key=lambda it: -it[1])]
        workers = " and ".join(f"{spent:.1f} s to {name}" for name, spent in self.worker_seconds.items())
        return (
            f"{', '.join(shares)}; device idle {self.device_idle:.1%}; threads took {workers}; "
            f"{self.rows_per_second:.2f} rows/s, {self.tokens_per_second:.1f} answer tokens/s; "
            f"peak memory {self.peak_bytes / 2**30:.1f} GiB"
        )
