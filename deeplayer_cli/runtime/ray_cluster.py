"""A Ray cluster: connecting to it, and what its workers need of it."""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCAL, AUTO = "local", "auto"

_LONGEST_BASE = 25  # bytes of the path of a temporary folder; Ray adds about 70, and sockets take about 100

_PATIENCE = 10.0  # seconds in which the workers of a run that has just ended are freed


@dataclass(frozen=True)
class RayResources:
    """What a run needs of a cluster.

    Attributes:
        n_workers: number of workers; None for one for each of the cluster's GPUs, or one without any.
        gpus: of each worker, or the share of one; None for one where the cluster has GPUs.
        cpus: of each worker.

    Raises:
        DeeplayerError: a number of GPUs or CPUs above 1 is not whole, which Ray refuses.
    """

    n_workers: int | None = None
    gpus: float | None = None
    cpus: float = 1.0

    def __post_init__(self) -> None:
        for name, amount in (("gpus", self.gpus or 0.0), ("cpus", self.cpus)):
            if not (amount <= 1 or (math.isfinite(amount) and amount == int(amount))):
                raise DeeplayerError(f"--{name}-per-worker must be a whole number, or below 1; it was {amount:g}")

    def on(self, cluster: Mapping[str, float]) -> RayResources:
        """Return the resources with all numbers, on a cluster that has these resources in all."""
        gpus = min(1.0, cluster.get("GPU", 0.0)) if self.gpus is None else self.gpus
        fitting = int(cluster.get("GPU", 0.0) / gpus) if gpus else 1
        return replace(self, gpus=gpus, n_workers=self.n_workers or max(1, fitting))

    @property
    def threads(self) -> int:
        """Threads of a worker that read images: one for each of its CPUs."""
        return max(1, int(self.cpus))

    @property
    def of_a_worker(self) -> dict[str, float]:
        """The resources of a worker by Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus or 0.0}


def import_ray() -> Any:
    """Import Ray, set to report no usage and to print nothing to stdout, where rows may go.

    Raises:
        DeeplayerError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ |= {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}  # else it tells of every worker that dies
    try:
        import ray
    except ImportError as error:
        raise DeeplayerError("--ray needs Ray: pip install 'deeplayer[ray]'") from error
    return ray


def socket_folder() -> str:
    """Make a temporary folder whose path is short enough for the sockets that Ray puts there."""
    base = tempfile.gettempdir()
    is_short = len(os.fsencode(base)) <= _LONGEST_BASE
    return tempfile.mkdtemp(prefix="ray-", dir=base if is_short else "/tmp")  # noqa: S108 - the name is random


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; at the end, disconnect.

    Args:
        address: ``local`` starts Ray on this machine for as long as the context; ``auto`` is the cluster that this
            machine belongs to; ``HOST:PORT`` is another.

    Raises:
        DeeplayerError: Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray()
    if address not in (LOCAL, AUTO):
        _refuse_unreachable(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = None
    if address == LOCAL:
        folder = socket_folder()
        options |= {"include_dashboard": False, "_temp_dir": folder}
    try:
        try:
            ray.init(address, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DeeplayerError(f"--ray {address}: there is no Ray cluster that can be used: {reason}") from error
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            with suppress(OSError):
                shutil.rmtree(folder)


def _refuse_unreachable(address: str) -> None:
    """Refuse an address where nothing answers: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    wanted = f"--ray must be local, auto or HOST:PORT of a Ray cluster, not {address!r}"
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise DeeplayerError(wanted)
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise DeeplayerError(f"{wanted}: {error}") from error


def refuse_too_few(ray: Any, needed: RayResources) -> None:
    """Refuse more workers than the cluster can run now: Ray would wait for ever.

    Raises:
        DeeplayerError: it has too few free CPUs or GPUs, or no node has enough of both.
    """
    n_workers, each = needed.n_workers or 1, needed.of_a_worker
    whole: Mapping[str, float] = ray.cluster_resources()
    asked = f"{counted(n_workers, 'worker')} of {needed.cpus:g} CPU and {each['GPU']:g} GPU"
    way_out = "use fewer --num-workers, or smaller --cpus-per-worker and --gpus-per-worker"
    for name, amount in each.items():
        total, deadline = whole.get(name, 0.0), time.monotonic() + _PATIENCE
        while (free := ray.available_resources().get(name, 0.0)) < amount * n_workers <= total:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if free < amount * n_workers:
            raise DeeplayerError(
                f"{asked} need {amount * n_workers:g} {name}, but the Ray cluster has {total:g}, of which {free:g} are "
                f"free: {way_out}"
            )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(
        min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in each.items() if amount) for node in nodes
    )
    if fitting < n_workers:
        raise DeeplayerError(
            f"{asked} do not fit onto the {counted(len(nodes), 'node')} of the Ray cluster, which can hold "
            f"{fitting:,}: {way_out}"
        )
