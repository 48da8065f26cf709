"""The selection path: evidence in, kept indices out, as one function that torch can compile."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch._dynamo.exc import TorchDynamoException

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from deeplayer_cli.pruning import Evidence, Stage

    Select = Callable[[Evidence, int], Tensor]

logger = logging.getLogger("deeplayer")


def selection(stage: Stage, *, compiled: bool) -> Select:
    """The stage's scorer and selector as one function of (evidence, number to keep), compiled if asked for.

    Shapes are dynamic: one compilation serves every tile count, batch and expression length. Without a working compiler
    on the machine the function warns once and goes on eagerly, with the same indices. What is not ``compilable``
    never is.
    """

    def select(evidence: Evidence, n_keep: int) -> Tensor:
        return stage.selector(stage.scorer(evidence), evidence, n_keep)

    return _CompiledOrEager(select) if compiled and stage.selector.compilable else select


class _CompiledOrEager:
    def __init__(self, eager: Select) -> None:
        self._eager = eager
        self._active: Select = torch.compile(eager, dynamic=True, fullgraph=True)

    def __call__(self, evidence: Evidence, n_keep: int) -> Tensor:
        try:
            return self._active(evidence, n_keep)
        except TorchDynamoException as error:
            if self._active is self._eager:
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logger.warning("torch.compile does not work here (%s); the selection path runs uncompiled", reason)
            self._active = self._eager
            return self._eager(evidence, n_keep)
