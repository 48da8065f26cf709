"""Methods by name: a file in ``pruning/methods``, or an entry point of the group ``deeplayer.methods``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.inputs import NEEDS
from deeplayer_cli.pruning.method import Budget, Method, Scorer, Selector, Stage, StageShare
from deeplayer_cli.pruning.topk import TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deeplayer_cli.pruning.inputs import QueryRowKind
    from deeplayer_cli.pruning.method import ScoreFrom
    from deeplayer_cli.pruning.prior import Prior

ENTRY_POINTS = "deeplayer.methods"
_PACKAGE = "deeplayer_cli.pruning.methods"

_TOP_K = TopK()
_LAYERS = 32  # of the models that layers are published for
_DEEP_LAYER = 12  # of these: the paper's


@dataclass(frozen=True)
class Options:
    """What a user may set about a method; each method takes what it needs.

    Attributes:
        budget: the visual tokens that stay at the end.
        layer: 1-based decoder layer to drop after, or None for the method's own.
        grounding_layer: where the model says that its attention finds the object; takes the place of layer 12 of 32.
        query: the prompt rows whose attention scores, for methods that read attention.
        prior: attention by place, for methods that are calibrated.
    """

    budget: Budget
    layer: int | None = None
    grounding_layer: int | None = None
    query: QueryRowKind = "last"
    prior: Prior | None = None


@dataclass(frozen=True)
class Drop:
    """One of a method's drops, before a model and a budget are known.

    Attributes:
        scorer: makes the scorer from the options.
        selector: turns scores into tokens.
        layer: the 1-based layer to drop after.
        of_32: the same in a model of 32 layers; other depths drop in proportion. With neither, it is the model's
            grounding layer, or else layer 12 of 32.
        power: see ``StageShare``.
        share: a fixed share that stays, see ``StageShare``.
        score_from: see ``Stage``.
    """

    scorer: Callable[[Options], Scorer]
    selector: Selector = _TOP_K
    layer: int | None = None
    of_32: int | None = None
    power: float = 1.0
    share: float | None = None
    score_from: ScoreFrom = "same_layer"

    def layer_in(self, n_layers: int, grounding_layer: int | None) -> int:
        """The layer that it drops after in a model of ``n_layers``."""
        if self.layer is not None:
            return self.layer
        if self.of_32 is None and grounding_layer is not None:
            return grounding_layer
        return max(1, round((self.of_32 or _DEEP_LAYER) * n_layers / _LAYERS))

    @property
    def after(self) -> str:
        """The layer that it drops after, in words."""
        return str(self.layer) if self.layer is not None else f"{self.of_32 or _DEEP_LAYER} of {_LAYERS}"


@dataclass(frozen=True)
class Entry:
    """A method as data: one drop, given by ``scorer``, ``selector`` and ``layer``, or several ``drops``, or none.

    Attributes:
        summary: what stays, in a few words.
        source: the paper or repository that it follows.
        scorer: makes the only drop's scorer from the options.
        selector: the only drop's.
        layer: the only drop's, see ``Drop``.
        is_calibrated: it needs a prior, and drops after the prior's layer.
        drops: instead of ``scorer``, ``selector`` and ``layer``, in the order of their layers.
        renumbers: see ``Method``.
    """

    summary: str
    source: str
    scorer: Callable[[Options], Scorer] | None = None
    selector: Selector = _TOP_K
    layer: int | None = None
    is_calibrated: bool = False
    drops: tuple[Drop, ...] = ()
    renumbers: bool = False

    @property
    def all_drops(self) -> tuple[Drop, ...]:
        """The drops, however they were given; none for a method that prunes nothing."""
        return self.drops or (() if self.scorer is None else (Drop(self.scorer, self.selector, self.layer),))

    @property
    def prunes(self) -> bool:
        """Whether it drops anything, so that a budget means something to it."""
        return bool(self.all_drops)

    @property
    def after(self) -> str | None:
        """The layers that it drops after, in words."""
        if not self.all_drops:
            return None
        *first, last = (drop.after for drop in self.all_drops)
        shown = ", ".join([*(layer.removesuffix(f" of {_LAYERS}") for layer in first), last])
        return f"{shown}, calibrated" if self.is_calibrated else shown

    def build(self, name: str, options: Options, n_layers: int) -> Method:
        """The method for a model of ``n_layers`` decoder layers.

        Raises:
            DeeplayerError: a layer is given for a method that drops after several, or a drop is not well-formed.
        """
        drops = self.all_drops
        layers = [drop.layer_in(n_layers, options.grounding_layer) for drop in drops]
        if options.layer is not None and len(drops) > 1:
            raise DeeplayerError(f"--layer {options.layer}: {name} drops after layers {layers} of {n_layers}, not one")
        if options.layer is not None:
            layers = [options.layer for _ in drops]
        elif self.is_calibrated and options.prior:
            layers = [options.prior.layer for _ in drops]
        stages = tuple(
            Stage(
                layer,
                drop.scorer(options),
                drop.selector,
                StageShare(options.budget, drop.power, drop.share),
                drop.score_from,
            )
            for layer, drop in zip(layers, drops, strict=True)
        )
        for stage in stages:
            _check_stage(name, stage, may_adapt=stage is stages[-1] and not self.renumbers)
        return Method(name, stages, self.renumbers)


def _check_stage(name: str, stage: Stage, *, may_adapt: bool) -> None:
    """Refuse what a package made and the engine could not run."""
    if not isinstance(stage.scorer, Scorer) or not isinstance(stage.selector, Selector):
        raise DeeplayerError(
            f"method {name}: its scorer and selector must be subclasses of deeplayer_cli.pruning.Scorer and Selector, "
            "whose `needs` name the inputs that they read; see deeplayer_cli/pruning/README.md"
        )
    if unknown := sorted(stage.needs - NEEDS):
        raise DeeplayerError(f"method {name} needs {', '.join(unknown)}, and there is only {', '.join(sorted(NEEDS))}")
    if stage.selector.merges and "features" not in stage.selector.needs:
        raise DeeplayerError(f"method {name}: its selector merges, so its `needs` must name features")
    if stage.selector.adaptive and not may_adapt:
        raise DeeplayerError(
            f"method {name}: a number of tokens that depends on content is for the last drop of a method that keeps "
            "position ids"
        )


@cache
def known_methods() -> Mapping[str, Entry]:
    """All methods by name: deeplayer's own, then those that installed packages bring.

    Raises:
        DeeplayerError: a package brings something else, or a name that is taken.
    """
    found = dict(sorted(_own().items(), key=lambda one: (one[1].prunes, one[0])))  # `none` first
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


def _own() -> dict[str, Entry]:
    names = [module.name for module in iter_modules(import_module(_PACKAGE).__path__)]
    return {name.replace("_", "-"): import_module(f"{_PACKAGE}.{name}").ENTRY for name in names}


def require_known(name: str) -> None:
    """Refuse a name that is no method's.

    Raises:
        DeeplayerError: it names those that there are.
    """
    if name not in known_methods():
        raise DeeplayerError(f"no pruning method is called {name!r}; there are: {', '.join(known_methods())}")


def build(name: str, options: Options, n_layers: int) -> Method:
    """Make the method called ``name`` for a model of ``n_layers`` decoder layers.

    Raises:
        DeeplayerError: no such method, or a layer that the model or the scorer does not have.
    """
    require_known(name)
    method = known_methods()[name].build(name, options, n_layers)
    for stage in method.stages:
        check_layer(stage, n_layers)
    return method


def check_layer(stage: Stage, n_layers: int) -> None:
    """Refuse a layer that is not there, has nothing behind it, or comes before the attention that the stage reads.

    Raises:
        DeeplayerError: it says which layers there are.
    """
    reads_attention = bool(stage.needs & {"queries", "keys", "values"})
    first = 1 if reads_attention and not stage.reads_next_layer else 0
    if not first <= stage.drop_after_layer < n_layers:
        raise DeeplayerError(
            f"--layer {stage.drop_after_layer} is out of range: this model has {n_layers} decoder layers, "
            f"and tokens can be dropped after layers {first} to {n_layers - 1}"
        )
