"""Pruning methods by name: pure functions on tensors, no model classes, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.base import Budget, Evidence, Method, QueryRows, Scorer, Selector, Stage
from deeplayer_cli.pruning.random import RandomScorer
from deeplayer_cli.pruning.topk import topk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "METHODS",
    "Budget",
    "Evidence",
    "Method",
    "Options",
    "QueryRows",
    "Scorer",
    "Selector",
    "Stage",
    "build",
    "require_known",
]


@dataclass(frozen=True)
class Options:
    """What a user may set about a method; each method takes what it needs.

    Attributes:
        budget: the visual tokens that stay at the end.
        layer: 1-based decoder layer to drop after, or None for the method's own.
        query: the prompt rows whose attention scores, for methods that read attention.
    """

    budget: Budget
    layer: int | None = None
    query: QueryRows = "last"

    def layer_of(self, n_layers: int) -> int:
        """The layer asked for, else the paper's layer 12 of 32 carried over to a model of ``n_layers``."""
        return round(12 * n_layers / 32) if self.layer is None else self.layer


def _none(options: Options, n_layers: int) -> Method:
    return Method("none")


def _random(options: Options, n_layers: int) -> Method:
    return Method("random", Stage(options.layer_of(n_layers), RandomScorer(), topk, options.budget))


def _deep_layer(options: Options, n_layers: int) -> Method:
    scorer = AttentionScorer(options.query)
    return Method("deep-layer", Stage(options.layer_of(n_layers), scorer, topk, options.budget))


METHODS: Mapping[str, Callable[[Options, int], Method]] = {
    "none": _none,
    "random": _random,
    "deep-layer": _deep_layer,
}


def require_known(name: str) -> None:
    """Refuse a name that is no method's.

    Raises:
        DeeplayerError: it names those that there are.
    """
    if name not in METHODS:
        raise DeeplayerError(f"no pruning method is called {name!r}; there are: {', '.join(METHODS)}")


def build(name: str, options: Options, n_layers: int) -> Method:
    """Make the method called ``name`` for a model of ``n_layers`` decoder layers.

    Raises:
        DeeplayerError: no such method, or a layer that the model or the scorer does not have.
    """
    require_known(name)
    method = METHODS[name](options, n_layers)
    if method.stage is not None:
        _check_layer(method.stage, n_layers)
    return method


def _check_layer(stage: Stage, n_layers: int) -> None:
    first = 0 if stage.scorer.rows is None else 1
    if not first <= stage.drop_after_layer < n_layers:
        raise DeeplayerError(
            f"--layer {stage.drop_after_layer} is out of range: this model has {n_layers} decoder layers, "
            f"and tokens can be dropped after layers {first} to {n_layers - 1}"
        )
