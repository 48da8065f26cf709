"""A run on a Ray cluster: this process reads the rows and writes the answers, and workers answer blocks of rows.

Not by Ray Data: its sources are lists of tasks that are known before the start and that a worker can read again after a
crash. The rows of a run come from this process, which may read them from a pipe, and leaves out those that a resumed
file holds. Nor can Ray Data stop to read and still finish what it has begun, as the first Ctrl-C does. Plain actors and
`ray.wait` can.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.blocks import BATCHES, Block, blocks_of
from deeplayer_cli.runtime.prepare import PreparedRun
from deeplayer_cli.runtime.ray_cluster import connected, refuse_too_few
from deeplayer_cli.runtime.ray_worker import HELD_BLOCKS, RayWorker
from deeplayer_cli.runtime.ray_workers import RayWorkers
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from deeplayer_cli.runtime.prepare import Prepare
    from deeplayer_cli.runtime.profile import Profile
    from deeplayer_cli.runtime.ray_cluster import RayResources
    from deeplayer_cli.runtime.ray_worker import RayWorkerIdentity
    from deeplayer_cli.runtime.run import Answerer
    from deeplayer_cli.schema import BadRequest, Prediction, Request

logger = logging.getLogger("deeplayer")


@contextmanager
def starting_workers(
    address: str, resources: RayResources, actor: type[RayWorker] = RayWorker
) -> Iterator[Callable[[Callable[..., PreparedRun[Any]], Mapping[str, Any]], RayWorkers]]:
    """Yield a function that starts workers on a Ray cluster, see `RayWorker` for its arguments; at the end, disconnect.

    Args:
        address: see `connected`.
        resources: of the workers.
        actor: what a worker is.

    Raises:
        DeeplayerError: Ray is not installed, there is no cluster at the address, or it has too few resources.
    """
    with connected(address) as ray:
        needed = resources.on(ray.cluster_resources())
        refuse_too_few(ray, needed)
        remote = ray.remote(num_cpus=needed.cpus, num_gpus=needed.gpus, max_concurrency=HELD_BLOCKS)(actor)

        def start(prepare: Callable[..., PreparedRun[Any]], arguments: Mapping[str, Any]) -> RayWorkers:
            one = partial(remote.remote, prepare, arguments, str(Path.cwd()))
            workers = RayWorkers(ray, one, needed.n_workers or 1)
            logger.info("%s of %g CPU and %g GPU", counted(len(workers), "Ray worker"), needed.cpus, needed.gpus)
            return workers

        yield start


@contextmanager
def on_ray(prepare: Prepare, address: str, resources: RayResources, *, ship_images: bool) -> Iterator[Prepare]:
    """Yield a function like ``prepare``, whose model is loaded by workers on a Ray cluster; at the end, disconnect.

    Args:
        prepare: runs in the workers.
        address: see `connected`.
        resources: of the workers.
        ship_images: send the contents of the image files; otherwise the workers read the files.

    Raises:
        DeeplayerError: see `starting_workers`.
    """
    with starting_workers(address, resources) as start:

        def prepare_there(
            model: str, *, revision: str | None, dtype: str, device: str, settings: Mapping[str, Any]
        ) -> PreparedRun[Answerer]:
            if settings["profile"]:
                raise DeeplayerError("--profile reports the time of one process: leave it out with --ray")
            wanted = {**settings, "workers": settings["workers"] or resources.threads}
            arguments = {"model": model, "revision": revision, "dtype": dtype, "device": device, "settings": wanted}
            workers = start(prepare, arguments)
            identity = workers.identity()
            return PreparedRun(
                identity.deciding, lambda: RayAnswerer(workers, identity, wanted, ship_images=ship_images)
            )

        yield prepare_there


class RayAnswerer:
    """Answers rows on a cluster; see `deeplayer_cli.runtime.run.Answerer`.

    Args:
        workers: answer the blocks.
        identity: of all workers.
        settings: of the run.
        ship_images: send the contents of the image files.

    Attributes:
        mean_keep: see `Answerer`.
    """

    def __init__(
        self, workers: RayWorkers, identity: RayWorkerIdentity, settings: Mapping[str, Any], *, ship_images: bool
    ) -> None:
        self._workers, self._ship_images = workers, ship_images
        self._block_size: int = BATCHES * settings["batch_size"]
        self.answers_whole_images: bool = settings["share"] == "union"
        self._advice: str | None = None
        self.mean_keep = workers.load(identity)

    def ground(self, rows: Iterable[Request | BadRequest], *, stopped: Callable[[], bool]) -> Iterator[Prediction]:
        """Yield one prediction for every row, in order.

        Args:
            rows: requests.
            stopped: once it is true, the blocks that workers hold are finished and no more rows are read.

        Raises:
            DeeplayerError: a worker refuses to go on, or workers die before they answer anything.
        """
        blocks = blocks_of(rows, self._block_size, whole_images=self.answers_whole_images, shipped=self._ship_images)
        for block, answers in self._workers.answers(map(Block, blocks), stopped, ship_images=self._ship_images):
            answers.log_remarks()
            self._advice = answers.advice or self._advice
            for _, prediction in zip(block.rows, answers.predictions, strict=True):
                yield prediction

    def advice(self) -> str | None:
        """Return the latest advice of a worker; see `Answerer.advice`."""
        return self._advice and f"one of the workers: {self._advice}"

    def profile(self, rows: int, seconds: float) -> Profile:
        """Not available: `on_ray` refuses it."""
        raise NotImplementedError
