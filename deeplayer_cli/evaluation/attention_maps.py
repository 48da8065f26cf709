"""Reads what a model attends to, image by image: the attention of all layers to the visual tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.pruning import Method, token_places, tokens_in_box
from deeplayer_cli.runtime.calibrate import QUESTION
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.schema import Request
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sources import by_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.pruning import Grid, QueryRowKind
    from deeplayer_cli.runtime.scheduler import Task
    from deeplayer_cli.runtime.scope_check import ScopeCheck
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.schema import BadRequest, Id

    Floats = npt.NDArray[np.float64]
    Booleans = npt.NDArray[np.bool_]

logger = logging.getLogger("deeplayer")

GENERIC_QUESTIONS = (QUESTION, "What is shown in this image?", "List the objects in this image.")
"""Questions about no part of an image. The first one is that of priors."""

_AT_ONCE = 16  # rows


@dataclass(frozen=True)
class ImageAttention:
    """What R prompts about one image attend to in L layers.

    Attributes:
        digest: of the image file's content.
        grid: columns and rows of tiles.
        n_tiles: number of tiles, the thumbnail included.
        ids: ids of the rows.
        by_kind: for each kind of query rows, the attention to the visual tokens, (L, R, n_visual), as a mean over
            heads. Over all keys it sums to 1.
        first: for each kind, the attention to the first token of the prompt, (L, R).
        generic: (L, Q, n_visual), the attention from the last token of each generic question; Q may be 0.
        targets: (R, n_visual), the visual tokens in each row's gold box; False everywhere without a gold box.
    """

    digest: str
    grid: Grid
    n_tiles: int
    ids: Sequence[Id]
    by_kind: dict[QueryRowKind, Floats]
    first: dict[QueryRowKind, Floats]
    generic: Floats
    targets: Booleans


class AttentionReader:
    """Reads the attention of a model, image by image.

    Args:
        checkpoint: the model.
        settings: how images are decoded and cut.
        kinds: the kinds of query rows to read.
        generic: read the attention of `GENERIC_QUESTIONS` too.
        scope: see `Grounder`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Settings,
        kinds: Sequence[QueryRowKind],
        *,
        generic: bool,
        scope: ScopeCheck | None = None,
    ) -> None:
        self._checkpoint, self._kinds = checkpoint, kinds
        self._grounder = Grounder(checkpoint, replace(settings, method="none", prior=None), scope=scope)
        tokenizer = checkpoint.tokenizer
        self._engine = Engine(checkpoint, Method("none"), draft=TemplateDraft.from_tokenizer(tokenizer))
        # The question takes the place of the expression, so that all questions share the prefix of the image.
        without_question = replace(checkpoint, prompt=checkpoint.prompt.with_question(""))
        self._generic_engine = Engine(without_question, Method("none")) if generic else None
        self._questions = [Row(0, tokenizer.encode_piece(question)) for question in GENERIC_QUESTIONS]

    @property
    def n_layers(self) -> int:
        """L, the number of decoder layers."""
        return self._engine.n_layers

    def read(self, requests: Sequence[Request | BadRequest]) -> Iterator[ImageAttention]:
        """Yield the attention about each image; rows that cannot be answered are left out, and a warning counts them.

        Args:
            requests: from `first_images`.

        Raises:
            DeeplayerError: no row can be answered.
        """
        n_read, problems = 0, []
        windows = chain.from_iterable(self._grounder.windows(requests))
        for group in by_image(windows, lambda loaded: loaded.request):
            tasks = []
            for index, loaded in enumerate(group):
                try:
                    tasks.append(self._grounder.task(index, loaded))
                except RowError as error:
                    problems.append(error.message)
            if tasks:
                n_read += len(tasks)
                yield self._read_image(tasks)
        if not n_read:
            raise DeeplayerError(f"no row can be read: {problems[0] if problems else 'the source is empty'}")
        if problems:
            n_rows = n_read + len(problems)
            logger.warning("left out: %d of %s; the first: %s", len(problems), counted(n_rows, "row"), problems[0])

    def _read_image(self, tasks: Sequence[Task]) -> ImageAttention:
        image, n_visual = tasks[0].image, tasks[0].n_visual
        encoded = self._engine.encode(torch.from_numpy(image.tiles)[None].to(self._engine.device))
        prefix = self._engine.prefix(encoded)
        rows = [Row(0, task.expression_ids) for task in tasks]
        parts = [
            self._engine.attention(prefix, rows[start : start + _AT_ONCE], self._kinds)
            for start in range(0, len(rows), _AT_ONCE)
        ]
        generic = np.zeros((self.n_layers, 0, n_visual))
        if self._generic_engine is not None:
            asked = self._generic_engine.attention(self._generic_engine.prefix(encoded), self._questions, ("last",))
            generic = _array([asked.on_visual("last")])
        return ImageAttention(
            image.digest,
            image.grid,
            len(image.tiles),
            [task.request.id for task in tasks],
            {kind: _array([part.on_visual(kind) for part in parts]) for kind in self._kinds},
            {kind: _array([part.by_kind[kind][..., 0] for part in parts]) for kind in self._kinds},
            generic,
            _targets(tasks),
        )


def first_images(requests: Iterable[Request | BadRequest], n_images: int | None) -> list[Request | BadRequest]:
    """The rows about the first images, the rows of an image next to each other; bad rows come last.

    Args:
        requests: all rows.
        n_images: number of images; None for all.
    """
    groups: dict[Path, list[Request | BadRequest]] = {}
    bad: list[Request | BadRequest] = []
    for request in requests:
        if not isinstance(request, Request):
            bad.append(request)
        elif request.path in groups:
            groups[request.path].append(request)
        elif n_images is None or len(groups) < n_images:
            groups[request.path] = [request]
    return [*chain.from_iterable(groups.values()), *bad]


def _targets(tasks: Sequence[Task]) -> Booleans:
    image, n_visual = tasks[0].image, tasks[0].n_visual
    places = token_places(image.grid, len(image.tiles), n_visual)
    targets = np.zeros((len(tasks), n_visual), dtype=np.bool_)
    for target, task in zip(targets, tasks, strict=True):
        if task.request.gold is not None:
            target[:] = tokens_in_box(places, image.grid, task.request.gold, image.resolution_wh).numpy()
    return targets


def _array(parts: Sequence[torch.Tensor]) -> Floats:
    """Batches (L, B, ...) of rows as one array (L, R, ...)."""
    joined: Floats = torch.cat(list(parts), dim=1).double().cpu().numpy()
    return joined
