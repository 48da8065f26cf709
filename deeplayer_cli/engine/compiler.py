"""Functions through ``torch.compile``, where it works."""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from deeplayer_cli.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("deeplayer")


class Compiler:
    """Compiles functions. Shapes are dynamic: few compilations serve every tile count, batch and expression length.

    Without a working compiler, it warns once, and all its functions run uncompiled, with the same results.
    """

    def __init__(self) -> None:
        self._works = True

    def __call__(self, eager: Callable[P, R]) -> Callable[P, R]:
        """Return a function that compiles ``eager`` when it is first called."""
        compiled: Callable[P, R] = torch.compile(eager, dynamic=True, fullgraph=True)

        @wraps(eager)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._works:
                try:
                    return compiled(*args, **kwargs)
                except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                    logger.warning(
                        "torch.compile does not work here (%s); the run goes on uncompiled", first_line(error)
                    )
                    self._works = False
            return eager(*args, **kwargs)

        return run
