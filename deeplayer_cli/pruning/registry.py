"""Finds methods by name: files in ``pruning/methods``, and entry points of the group ``deeplayer.methods``."""

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
    from collections.abc import Callable, Mapping, Sequence, Set
    from importlib.metadata import EntryPoint

    from deeplayer_cli.pruning.inputs import QueryRowKind
    from deeplayer_cli.pruning.method import Schedule, ScoreFrom
    from deeplayer_cli.pruning.prior import Prior

ENTRY_POINTS = "deeplayer.methods"
_PACKAGE = "deeplayer_cli.pruning.methods"

_TOP_K = TopK()
_LAYERS = 32  # depth of the models that the papers name layers of
_DEEP_LAYER = 12  # the layer of "Deep-Layer Attention Pruning for Vision-Language Models"


@dataclass(frozen=True)
class Options:
    """The options of a method that a user may set. Each method reads those that it needs.

    Attributes:
        budget: the number of visual tokens that are kept after the last drop.
        layer: the decoder layer to drop after, counted from 1; None for the method's own layer.
        grounding_layer: the layer that the checkpoint names as its grounding layer; it replaces layer 12 of 32.
        query: the query rows whose attention scores, for methods that read attention.
        prior: mean attention by place, for calibrated methods.
    """

    budget: Budget
    layer: int | None = None
    grounding_layer: int | None = None
    query: QueryRowKind = "last"
    prior: Prior | None = None


@dataclass(frozen=True)
class Drop:
    """One drop of a method, without a model and a budget.

    Attributes:
        scorer: makes the scorer from the options.
        selector: chooses the kept tokens.
        layer: the layer to drop after, counted from 1, at any depth of the model.
        of_32: the layer to drop after in a model of 32 layers; it is scaled to the model's depth. Without ``layer`` and
            ``of_32``, the drop comes after the grounding layer, or else after layer 12 of 32.
        power: see ``StageShare``.
        share: a fixed share of tokens to keep, see ``StageShare``.
        score_from: see ``Stage``.
        schedule: see ``StageShare``.
    """

    scorer: Callable[[Options], Scorer]
    selector: Selector = _TOP_K
    layer: int | None = None
    of_32: int | None = None
    power: float = 1.0
    share: float | None = None
    score_from: ScoreFrom = "same_layer"
    schedule: Schedule = ()

    def layer_in(self, n_layers: int, grounding_layer: int | None) -> int:
        """The layer of the drop in a model of ``n_layers`` decoder layers."""
        if self.layer is not None:
            return self.layer
        if self.of_32 is None and grounding_layer is not None:
            return grounding_layer
        return max(1, round((self.of_32 or _DEEP_LAYER) * n_layers / _LAYERS))

    @property
    def after(self) -> str:
        """The layer of the drop, as text: ``2`` or ``12 of 32``."""
        return str(self.layer) if self.layer is not None else f"{self.of_32 or _DEEP_LAYER} of {_LAYERS}"


@dataclass(frozen=True)
class Entry:
    """The declaration of a method.

    A method with one drop gives ``scorer``, ``selector`` and ``layer``. A method with several drops gives ``drops``
    instead. A method that prunes nothing gives none of them.

    Attributes:
        summary: which tokens are kept, in a few words.
        source: the paper or repository that the method follows.
        scorer: makes the scorer of the only drop from the options.
        selector: the selector of the only drop.
        layer: the layer of the only drop, see ``Drop``.
        is_calibrated: whether the method needs a prior; then it drops after the prior's layer.
        drops: several drops, in the order of their layers.
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
        """All drops; empty for a method that prunes nothing."""
        return self.drops or (() if self.scorer is None else (Drop(self.scorer, self.selector, self.layer),))

    @property
    def prunes(self) -> bool:
        """Whether the method drops tokens. If not, a budget has no effect on it."""
        return bool(self.all_drops)

    @property
    def after(self) -> str | None:
        """The layers of the drops, as text: ``8, 16, 24 of 32``; None for a method that prunes nothing."""
        if not self.all_drops:
            return None
        *first, last = (drop.after for drop in self.all_drops)
        shown = ", ".join([*(layer.removesuffix(f" of {_LAYERS}") for layer in first), last])
        return f"{shown}, calibrated" if self.is_calibrated else shown

    def build(self, name: str, options: Options, n_layers: int) -> Method:
        """Build the method for a model of ``n_layers`` decoder layers.

        Args:
            name: the method's name.
            options: what the user has set.
            n_layers: number of decoder layers of the model.

        Raises:
            DeeplayerError: ``options`` give a layer, but the method has several drops; or a drop is invalid.
        """
        drops = self.all_drops
        layers = [drop.layer_in(n_layers, options.grounding_layer) for drop in drops]
        if options.layer is not None and len(drops) > 1:
            raise DeeplayerError(f"--layer {options.layer}: {name} drops after several layers, {layers} of {n_layers}")
        if options.layer is not None:
            layers = [options.layer for _ in drops]
        elif self.is_calibrated and options.prior:
            layers = [options.prior.layer for _ in drops]
        stages = tuple(
            Stage(
                layer,
                _make_scorer(name, drop, options),
                drop.selector,
                StageShare(options.budget, drop.power, drop.share, drop.schedule),
                drop.score_from,
            )
            for layer, drop in zip(layers, drops, strict=True)
        )
        for stage in stages:
            _check_stage(name, stage, may_adapt=stage is stages[-1] and not self.renumbers)
        return Method(name, stages, self.renumbers)


def _make_scorer(name: str, drop: Drop, options: Options) -> Scorer:
    """Make the scorer of a drop.

    Raises:
        DeeplayerError: the method's own code raised an exception; the message names the method.
    """
    try:
        return drop.scorer(options)
    except DeeplayerError:
        raise
    except Exception as error:  # foreign code may raise anything
        raise DeeplayerError(
            f"method {name} is broken: making its scorer raised {type(error).__name__}: {error}"
        ) from error


def _check_stage(name: str, stage: Stage, *, may_adapt: bool) -> None:
    """Refuse a stage that the engine cannot run.

    Raises:
        DeeplayerError: the message names the method and the reason.
    """
    if not isinstance(stage.scorer, Scorer) or not isinstance(stage.selector, Selector):
        raise DeeplayerError(
            f"method {name}: its scorer and selector must be subclasses of deeplayer_cli.pruning.Scorer and Selector, "
            "and their `needs` must name the inputs that they read; see deeplayer_cli/pruning/README.md"
        )
    if unknown := sorted(stage.needs - NEEDS):
        raise DeeplayerError(f"method {name} needs {', '.join(unknown)}; known inputs: {', '.join(sorted(NEEDS))}")
    if stage.selector.merges and "features" not in stage.selector.needs:
        raise DeeplayerError(f"method {name}: its selector merges tokens, so its `needs` must name features")
    if stage.selector.adaptive and not may_adapt:
        raise DeeplayerError(
            f"method {name}: only the last drop may be adaptive, and only if the method does not renumber position ids"
        )


@cache
def known_methods() -> Mapping[str, Entry]:
    """All methods by name: deeplayer's own methods, then those of installed packages that can be used."""
    own = dict(sorted(_own().items(), key=lambda one: (one[1].prunes, one[0])))  # `none` first
    foreign = {point.name: entry for point, entry in _foreign() if isinstance(entry, Entry)}
    return own | foreign


@cache
def broken_methods() -> Mapping[str, str]:
    """The methods of installed packages that cannot be used: the reason by name, one sentence each."""
    return {point.name: reason for point, reason in _foreign() if isinstance(reason, str)}


@cache
def _foreign() -> Sequence[tuple[EntryPoint, Entry | str]]:
    """The entry points of installed packages, each with its method, or with the reason why it cannot be used."""
    taken = set(_own())
    found: list[tuple[EntryPoint, Entry | str]] = []
    for point in entry_points(group=ENTRY_POINTS):
        found.append((point, _load(point, taken)))
        taken.add(point.name)
    return found


def _load(point: EntryPoint, taken: Set[str]) -> Entry | str:
    cannot = f"method {point.name!r} from {point.value} cannot be used"
    if point.name in taken:
        return f"{cannot}: its name is taken"
    try:
        entry = point.load()
    except (Exception, SystemExit) as error:  # a foreign package may raise anything, or exit
        return f"{cannot}: loading it raised {type(error).__name__}: {error}"
    return entry if isinstance(entry, Entry) else f"{cannot}: it is not a deeplayer_cli.pruning.Entry"


def _own() -> dict[str, Entry]:
    names = [module.name for module in iter_modules(import_module(_PACKAGE).__path__)]
    return {name.replace("_", "-"): import_module(f"{_PACKAGE}.{name}").ENTRY for name in names}


def require_known(name: str) -> None:
    """Refuse a method name that is unknown, or whose method cannot be used.

    Raises:
        DeeplayerError: no method has this name, and the message lists all methods; or the method's package is broken.
    """
    if name in known_methods():
        return
    if name in broken_methods():
        raise DeeplayerError(broken_methods()[name])
    raise DeeplayerError(f"unknown pruning method {name!r}; known methods: {', '.join(known_methods())}")


def build(name: str, options: Options, n_layers: int) -> Method:
    """Build the method ``name`` for a model of ``n_layers`` decoder layers.

    Raises:
        DeeplayerError: there is no such method, or it cannot drop after the given layer.
    """
    require_known(name)
    method = known_methods()[name].build(name, options, n_layers)
    for stage in method.stages:
        check_layer(stage, n_layers)
    return method


def check_layer(stage: Stage, n_layers: int) -> None:
    """Refuse a layer after which the stage cannot drop.

    The layer must exist and must not be the last one. A stage that reads queries, keys or values cannot drop before
    layer 1, unless it scores with the next layer.

    Raises:
        DeeplayerError: the layer is out of range; the message names the range.
    """
    reads_attention = bool(stage.needs & {"queries", "keys", "values"})
    first = 1 if reads_attention and not stage.reads_next_layer else 0
    if not first <= stage.drop_after_layer < n_layers:
        raise DeeplayerError(
            f"--layer {stage.drop_after_layer} is out of range: this model has {n_layers} decoder layers, "
            f"and tokens can be dropped after layers {first} to {n_layers - 1}"
        )
