"""A worker on a Ray cluster: a process that loads the model once and answers blocks of rows."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from deeplayer_cli import __version__
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.blocks import BlockAnswers, answer, collected_remarks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.runtime.prepare import Prepare
    from deeplayer_cli.runtime.run import Answerer
    from deeplayer_cli.schema import BadRequest, Request

logger = logging.getLogger("deeplayer")

HELD_BLOCKS = 2
"""Blocks that a worker holds: it answers one, and the next is there when it is done."""


@dataclass(frozen=True)
class RayWorkerIdentity:
    """What must be equal for all workers of a run.

    Attributes:
        version: of deeplayer.
        deciding: everything that an answer depends on, besides its row and image.
    """

    version: str
    deciding: Mapping[str, object]


class RayWorker:
    """The actor. The model is loaded here and never travels.

    Args:
        prepare: see `deeplayer_cli.runtime.prepare`.
        arguments: of ``prepare``.
        folder: the working directory of the command; relative paths start from it.
    """

    def __init__(self, prepare: Prepare, arguments: Mapping[str, Any], folder: str) -> None:
        self._prepare, self._arguments, self._folder = prepare, arguments, folder
        self._answerer: Answerer | None = None
        self._device = Lock()
        logger.setLevel(logging.INFO)

    def identity(self) -> RayWorkerIdentity:
        """Check the model and the settings without loading the model.

        Raises:
            DeeplayerError: the working directory or the model does not exist here, or a setting is invalid.
        """
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise DeeplayerError(
                f"{socket.gethostname()} has no folder {self._folder}, from which this command runs: run it in a "
                "folder that all machines share, or with --ship-images in one that each has, such as /tmp"
            ) from error
        self._prepared = self._prepare(**self._arguments)
        return RayWorkerIdentity(__version__, self._prepared.deciding)

    def load(self, expected: RayWorkerIdentity) -> Callable[[int, int], float]:
        """Load the model; return `Answerer.mean_keep`.

        Args:
            expected: of the other workers.

        Raises:
            DeeplayerError: this worker would give other answers; or the model cannot be loaded.
        """
        mine = self.identity()
        ours, theirs = ({"deeplayer": one.version, **one.deciding} for one in (mine, expected))
        if other := [name for name in ours if ours[name] != theirs.get(name)]:
            raise DeeplayerError(
                f"the workers would give different answers: {other[0]} is {ours[other[0]]} on {socket.gethostname()}, "
                f"and {theirs.get(other[0])} on another worker"
            )
        self._answerer = self._prepared.load()
        return self._answerer.mean_keep

    def answer(self, rows: Sequence[Request | BadRequest], images: Mapping[Path, bytes] | None) -> BlockAnswers:
        """Answer a block; arguments as for `deeplayer_cli.runtime.blocks.answer`."""
        assert self._answerer is not None  # noqa: S101 - `load` has returned before
        with self._device, collected_remarks(logger) as remarks:
            predictions = answer(self._answerer, rows, images)
            return BlockAnswers(predictions, remarks, self._answerer.advice())
