"""A comparison on a Ray cluster: workers answer blocks of rows, each row under all settings that lack its answer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from deeplayer_cli.runtime.blocks import BATCHES, Block, blocks_of
from deeplayer_cli.runtime.identity import ModelIdentity
from deeplayer_cli.runtime.prior_file import prior_digest, read_prior
from deeplayer_cli.runtime.ray_run import starting_workers
from deeplayer_cli.runtime.ray_worker import ComparingRayWorker
from deeplayer_cli.runtime.turns import prepare_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.checkpoints import Layout
    from deeplayer_cli.pruning import Prior
    from deeplayer_cli.runtime.ray_cluster import RayResources
    from deeplayer_cli.runtime.ray_workers import RayWorkers
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.runtime.turns import IsUnanswered, LoadModel
    from deeplayer_cli.schema import BadRequest, Prediction, Request


@contextmanager
def loading_on_ray(address: str, resources: RayResources, *, ship_images: bool) -> Iterator[LoadModel]:
    """Yield a function like `LoadedModel.load` whose model workers on a Ray cluster load; at the end, disconnect.

    Args:
        address: see `connected`.
        resources: of the workers.
        ship_images: send the contents of the image files; otherwise the workers read the files.

    Raises:
        DeeplayerError: see `starting_workers`.
    """
    with starting_workers(address, resources, ComparingRayWorker) as start:

        def load_there(
            model: str, *, revision: str | None, dtype: str, device: str, prior: Path | None = None
        ) -> RayModel:
            digest, read = (prior_digest(prior), read_prior(prior)[0]) if prior else (None, None)
            arguments = {"model": model, "revision": revision, "dtype": dtype, "device": device, "prior": prior}
            workers = start(prepare_model, arguments)
            theirs = workers.identity()
            identity = ModelIdentity(str(theirs.deciding["weights"]), str(theirs.deciding["dtype"]))
            layout = workers.load(replace(theirs, deciding={**theirs.deciding, "prior": digest}))
            return RayModel(workers, layout, identity, read, ship_images=ship_images)

        yield load_there


class RayModel:
    """A model on a cluster that answers rows under several settings; see `deeplayer_cli.runtime.turns.ComparedModel`.

    Args:
        workers: have loaded the model.
        layout: describes it.
        identity: of the model.
        prior: prior for calibrated methods.
        ship_images: send the contents of the image files.

    Attributes:
        checkpoint: describes the model.
        identity: its identity.
        prior: prior for calibrated methods.
        seconds: empty: how long one process would take is not known.
    """

    def __init__(
        self, workers: RayWorkers, layout: Layout, identity: ModelIdentity, prior: Prior | None, *, ship_images: bool
    ) -> None:
        self.checkpoint, self.identity, self.prior = layout, identity, prior
        self.seconds: Mapping[Settings, float] = {}
        self._workers, self._ship_images = workers, ship_images

    def answer(
        self,
        rows: Iterable[Request | BadRequest],
        unanswered: Mapping[Settings, IsUnanswered],
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[Settings, Prediction]]:
        """Answer rows; see `ComparedModel.answer`.

        Args:
            rows: requests.
            unanswered: see `ComparedModel.answer`.
            stopped: once it is true, the blocks that workers hold are finished and no more rows are read.

        Raises:
            DeeplayerError: a worker refuses to go on, or workers die before they answer anything.
        """

        def wanted(row: Request | BadRequest) -> list[Settings]:
            return [settings for settings, is_unanswered in unanswered.items() if is_unanswered(row)]

        size = BATCHES * max(settings.batch_size for settings in unanswered)
        parts = blocks_of(rows, size, whole_images=False, shipped=self._ship_images)
        blocks = (Block(part, [wanted(row) for row in part]) for part in parts)
        for block, answers in self._workers.answers(blocks, stopped, ship_images=self._ship_images):
            answers.log_remarks()
            yield from zip(chain.from_iterable(block.settings or ()), answers.predictions, strict=True)
