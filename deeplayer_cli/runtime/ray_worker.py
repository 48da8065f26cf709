"""A worker on a Ray cluster: a process that loads the model once and answers blocks of rows."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from deeplayer_cli import __version__
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.blocks import BlockAnswers, answer, collected_remarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.checkpoints import Layout
    from deeplayer_cli.runtime.prepare import PreparedRun
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.schema import BadRequest, Prediction, Request

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
    """The actor of a run under the settings in its arguments. The model is loaded here and never travels.

    Args:
        prepare: checks what is wanted, and can load it; see `deeplayer_cli.runtime.prepare`.
        arguments: of ``prepare``.
        folder: the working directory of the command; relative paths start from it.
    """

    def __init__(self, prepare: Callable[..., PreparedRun[Any]], arguments: Mapping[str, Any], folder: str) -> None:
        self._prepare, self._arguments, self._folder = prepare, arguments, folder
        self._loaded: Any = None
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

    def load(self, expected: RayWorkerIdentity) -> Any:
        """Load the model; return what the driver must know about it.

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
                f"and {theirs.get(other[0])} elsewhere"
            )
        self._loaded = self._prepared.load()
        return self._told()

    def answer(
        self,
        rows: Sequence[Request | BadRequest],
        images: Mapping[Path, bytes] | None,
        settings: Sequence[Sequence[Settings]] | None,
    ) -> BlockAnswers:
        """Answer a block, see `deeplayer_cli.runtime.blocks.Block`; ``images`` are the contents of its image files."""
        with self._device, collected_remarks(logger) as remarks:
            predictions = answer(partial(self._ground, settings=settings), rows, images)
            return BlockAnswers(predictions, remarks, self._advice())

    def _told(self) -> Any:
        """Return `deeplayer_cli.runtime.run.Answerer.mean_keep`."""
        return self._loaded.mean_keep

    def _ground(self, rows: Sequence[Request | BadRequest], settings: Any) -> Iterable[Prediction]:
        del settings  # those of the run, which the answerer has
        found: Iterable[Prediction] = self._loaded.ground(rows, stopped=lambda: False)
        return found

    def _advice(self) -> str | None:
        advice: str | None = self._loaded.advice()
        return advice


class ComparingRayWorker(RayWorker):
    """The actor of a comparison: it answers each row under the settings that come with it."""

    def _told(self) -> Layout:
        """Return the description of the model; its tokenizer and configuration can travel, unlike its weights."""
        from deeplayer_cli.checkpoints import read_layout

        return read_layout(self._arguments["model"], self._arguments["revision"])

    def _ground(
        self, rows: Sequence[Request | BadRequest], settings: Sequence[Sequence[Settings]]
    ) -> Iterable[Prediction]:
        from deeplayer_cli.runtime.turns import answer_each

        return answer_each(self._loaded, rows, settings)

    def _advice(self) -> None:
        return None
