"""The methods that there are, each a line of data; others join through the entry-point group ``deeplayer.methods``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.base import Budget, Method, QueryRows, Scorer, Selector, Stage
from deeplayer_cli.pruning.independent_set import IndependentSet
from deeplayer_cli.pruning.max_min import MaxMin, NoScore
from deeplayer_cli.pruning.random import RandomScorer
from deeplayer_cli.pruning.topk import TopK
from deeplayer_cli.pruning.uniform import UniformScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENTRY_POINTS = "deeplayer.methods"

_TOP_K = TopK()


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


@dataclass(frozen=True)
class Entry:
    """A method as data.

    Attributes:
        summary: what stays, in a few words.
        source: the paper or repository that it follows.
        scorer: makes the scorer from the options; None for a method that prunes nothing.
        selector: turns scores into tokens.
        layer: the 1-based layer that it drops after, unless the user says otherwise; None for the paper's layer 12 of
            32, carried over to the model's depth.
    """

    summary: str
    source: str
    scorer: Callable[[Options], Scorer] | None = None
    selector: Selector = _TOP_K
    layer: int | None = None

    def layer_of(self, options: Options, n_layers: int) -> int:
        """The layer that it drops after in a model of ``n_layers``."""
        if options.layer is not None:
            return options.layer
        return round(12 * n_layers / 32) if self.layer is None else self.layer

    def build(self, name: str, options: Options, n_layers: int) -> Method:
        """The method for a model of ``n_layers`` decoder layers."""
        if self.scorer is None:
            return Method(name)
        stage = Stage(self.layer_of(options, n_layers), self.scorer(options), self.selector, options.budget)
        return Method(name, (stage,))


_DEEP_LAYER = "Deep-Layer Attention Pruning (clawRxiv 2604.00591)"

_OWN = {
    "none": Entry("everything", "the unpruned model"),
    "random": Entry("a seeded random choice", "the baseline to beat", lambda _: RandomScorer()),
    "uniform": Entry("a regular grid", "the baseline to beat without looking", lambda _: UniformScorer()),
    "deep-layer": Entry(
        "the most attended at layer 12 of 32", _DEEP_LAYER, lambda options: AttentionScorer(options.query)
    ),
    "deep-layer-mis": Entry(
        "the same scores; pivots, then tokens unlike them (S_spat is ours)",
        f"{_DEEP_LAYER}, as it was run",
        lambda options: AttentionScorer(options.query),
        IndependentSet(),
    ),
    "primed": Entry(
        "the most attended by the drafted answer's last token, about to write the box",
        "this project's own",
        lambda _: AttentionScorer("drafted"),
    ),
    "fastv": Entry(
        "the most attended at layer 2",
        "FastV (arXiv:2403.06764)",
        lambda options: AttentionScorer(options.query),
        layer=2,
    ),
    "divprune": Entry(
        "the most diverse before the language model",
        "DivPrune (arXiv:2503.02175)",
        lambda _: NoScore(),
        MaxMin(),
        layer=0,
    ),
}


@cache
def methods() -> Mapping[str, Entry]:
    """All methods by name: deeplayer's own, then those that installed packages bring.

    Raises:
        DeeplayerError: a package brings something else, or a name that is taken.
    """
    found = dict(_OWN)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            entry = point.load()
        except Exception as error:  # whatever a stranger's package comes up with
            raise DeeplayerError(f"method {point.name!r} cannot be loaded from {point.value}: {error}") from error
        if not isinstance(entry, Entry) or point.name in found:
            reason = "its name is taken" if point.name in found else "it is no deeplayer_cli.pruning.Entry"
            raise DeeplayerError(f"method {point.name!r} from {point.value} cannot be used: {reason}")
        found[point.name] = entry
    return found


def require_known(name: str) -> None:
    """Refuse a name that is no method's.

    Raises:
        DeeplayerError: it names those that there are.
    """
    if name not in methods():
        raise DeeplayerError(f"no pruning method is called {name!r}; there are: {', '.join(methods())}")


def build(name: str, options: Options, n_layers: int) -> Method:
    """Make the method called ``name`` for a model of ``n_layers`` decoder layers.

    Raises:
        DeeplayerError: no such method, or a layer that the model or the scorer does not have.
    """
    require_known(name)
    method = methods()[name].build(name, options, n_layers)
    for stage in method.stages:
        _check_layer(stage, n_layers)
    return method


def _check_layer(stage: Stage, n_layers: int) -> None:
    first = 0 if stage.scorer.rows is None else 1
    if not first <= stage.drop_after_layer < n_layers:
        raise DeeplayerError(
            f"--layer {stage.drop_after_layer} is out of range: this model has {n_layers} decoder layers, "
            f"and tokens can be dropped after layers {first} to {n_layers - 1}"
        )
