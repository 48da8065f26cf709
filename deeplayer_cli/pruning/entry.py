"""The declaration of a method: what it drops, when, and what a user may set about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.budget import Budget, StageShare
from deeplayer_cli.pruning.inputs import NEEDS, QueryRowKind
from deeplayer_cli.pruning.method import Method, Scorer, Scout, Selector, Stage
from deeplayer_cli.pruning.topk import FewestWithMass, TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deeplayer_cli.pruning.budget import Schedule
    from deeplayer_cli.pruning.method import ScoreFrom
    from deeplayer_cli.pruning.parameter import Parameter, Value
    from deeplayer_cli.pruning.prior import Prior

PositionIds = Literal["keep", "renumber"]
"""What later layers do with the position ids of the tokens that are left: keep them, or number them without gaps."""

PositionsOption = Literal["keep", "renumber", "published"]
"""The values of ``--positions``: one of `PositionIds` for every method, or what the method's authors do."""

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
        positions: what happens to position ids; ``published``: what the method's authors do.
        parameters: the method's own parameters, see ``Entry.parameters``; those that are not given have their default.
    """

    budget: Budget
    layer: int | None = None
    grounding_layer: int | None = None
    query: QueryRowKind = "last"
    prior: Prior | None = None
    positions: PositionsOption = "keep"
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """One drop of a method, without a model and a budget.

    Attributes:
        scorer: makes the scorer from the options.
        selector: chooses the kept tokens; or makes such a selector from the options.
        layer: the layer to drop after, counted from 1, at any depth of the model.
        of_32: the layer to drop after in a model of 32 layers; it is scaled to the model's depth. Without ``layer`` and
            ``of_32``, the drop comes after the grounding layer, or else after layer 12 of 32.
        power: see ``StageShare``.
        share: a fixed share of tokens to keep, see ``StageShare``.
        score_from: see ``Stage``.
        schedule: see ``StageShare``.
        scout: makes ``Scout.updates`` from the options, if a scout scores: then the tokens are dropped before layer 1,
            and ``layer`` or ``of_32`` is the scout's last layer.
    """

    scorer: Callable[[Options], Scorer]
    selector: Selector | Callable[[Options], Selector] = _TOP_K
    layer: int | None = None
    of_32: int | None = None
    power: float = 1.0
    share: float | None = None
    score_from: ScoreFrom = "same_layer"
    schedule: Schedule = ()
    scout: Callable[[Options], int] | None = None

    def stage(self, name: str, options: Options, layer: int) -> Stage:
        """The drop as a stage of method ``name``, after ``layer``.

        Raises:
            DeeplayerError: the method's own code raised an exception; the message names the method.
        """
        try:
            selector = self.selector if isinstance(self.selector, Selector) else self.selector(options)
            scorer = self.scorer(options)
            scout = None if self.scout is None else Scout(layer, self.scout(options))
        except DeeplayerError:
            raise
        except Exception as error:  # foreign code may raise anything
            raise DeeplayerError(
                f"method {name} is broken: making its scorer and selector raised {type(error).__name__}: {error}"
            ) from error
        share = StageShare(options.budget, self.power, self.share, self.schedule)
        return Stage(0 if scout else layer, scorer, selector, share, self.score_from, scout)

    def layer_in(self, n_layers: int, grounding_layer: int | None) -> int:
        """The layer of the drop in a model of ``n_layers`` decoder layers."""
        if self.layer is not None:
            return self.layer
        if self.of_32 is None and grounding_layer is not None:
            return grounding_layer
        of_32 = _DEEP_LAYER if self.of_32 is None else self.of_32
        return max(min(1, of_32), round(of_32 * n_layers / _LAYERS))  # only layer 0 itself becomes 0

    @property
    def after(self) -> str:
        """The layer of the drop, as text: ``2`` or ``12 of 32``."""
        if self.layer is not None or self.of_32 == 0:
            return str(self.layer or 0)
        return f"{self.of_32 or _DEEP_LAYER} of {_LAYERS}"


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
        positions: what the authors' program does with position ids; None if nothing is published.
        parameters: the method's own parameters by name. ``--method NAME@PARAMETER=VALUE`` sets one.
        keep: the share of visual tokens that it keeps if the user does not say.
        freeze_of_32: the layer of a model of 32 layers after which visual tokens are frozen, see ``Method``; it is
            scaled to the model's depth. None: they are not frozen.
    """

    summary: str
    source: str
    scorer: Callable[[Options], Scorer] | None = None
    selector: Selector | Callable[[Options], Selector] = _TOP_K
    layer: int | None = None
    is_calibrated: bool = False
    drops: tuple[Drop, ...] = ()
    positions: PositionIds | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    keep: float = 0.1
    freeze_of_32: int | None = None

    @property
    def all_drops(self) -> tuple[Drop, ...]:
        """All drops; empty for a method that prunes nothing."""
        return self.drops or (() if self.scorer is None else (Drop(self.scorer, self.selector, self.layer),))

    @property
    def prunes(self) -> bool:
        """Whether the method drops tokens. If not, a budget has no effect on it."""
        return bool(self.all_drops)

    @property
    def scouts(self) -> bool:
        """Whether a drop scores in a pass of its own, which the mean keep leaves out."""
        return any(drop.scout is not None for drop in self.all_drops)

    @property
    def has_layer(self) -> bool:
        """Whether the method does anything after a layer. If not, a layer has no effect on it."""
        return self.prunes or self.freeze_of_32 is not None

    @property
    def after(self) -> str | None:
        """The layers of the drops, as text: ``8, 16, 24 of 32``; without drops, the layer of freezing, if any."""
        if not self.all_drops:
            return None if self.freeze_of_32 is None else f"{self.freeze_of_32} of {_LAYERS}"
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
            DeeplayerError: ``options`` give a layer, but the method has several drops; or a drop is invalid, or
                does not come after a later layer than the drop before it.
        """
        defaults = {key: parameter.default for key, parameter in self.parameters.items()}
        options = replace(options, parameters={**defaults, **options.parameters})
        renumbers = (self.positions if options.positions == "published" else options.positions) == "renumber"
        drops = self.all_drops
        layers = [drop.layer_in(n_layers, options.grounding_layer) for drop in drops]
        if options.layer is not None:
            layers = self._with_layer(name, options.layer, layers, n_layers)
        elif self.is_calibrated and options.prior:
            layers = [options.prior.layer for _ in drops]
        stages = tuple(drop.stage(name, options, layer) for layer, drop in zip(layers, drops, strict=True))
        if options.budget.mass is not None:
            stages = _with_mass(name, stages, options.budget.mass, options.budget.least)
            if renumbers and any(stage.selector.adaptive for stage in stages):
                raise DeeplayerError(
                    f"method {name}: --keep auto:P goes with kept position ids only: leave out --positions "
                    f"{options.positions}, or give --keep a share"
                )
        for stage in stages:
            _check_stage(name, stage, may_adapt=stage is stages[-1] and not renumbers)
            if stage.scout is not None:
                _check_scout(name, stage, stage.scout, is_first=stage is stages[0])
        _check_order(name, stages, n_layers)
        return Method(name, stages, renumbers, self._freeze_after_layer(options, n_layers))

    def _with_layer(self, name: str, layer: int, layers: list[int], n_layers: int) -> list[int]:
        """The layers of the drops, with the user's ``layer`` for the only drop, or for the only one at no fixed layer.

        Raises:
            DeeplayerError: several drops come after a layer that follows the model's depth.
        """
        free = [number for number, drop in enumerate(self.all_drops) if len(layers) == 1 or drop.layer is None]
        if len(free) > 1:
            raise DeeplayerError(f"layer {layer}: {name} drops after several layers, {layers} of {n_layers}")
        return [layer if number in free else own for number, own in enumerate(layers)]

    def _freeze_after_layer(self, options: Options, n_layers: int) -> int | None:
        if self.freeze_of_32 is None:
            return None
        if self.all_drops or options.layer is None:
            return round(self.freeze_of_32 * n_layers / _LAYERS)
        if not 0 <= options.layer <= n_layers:
            raise DeeplayerError(
                f"layer {options.layer} is out of range: this model has {n_layers} decoder layers, and visual tokens "
                f"can be frozen after layers 0 to {n_layers}"
            )
        return options.layer


def _with_mass(name: str, stages: tuple[Stage, ...], mass: float, least: float) -> tuple[Stage, ...]:
    """The stages with the selector of a budget that is a share of the attention.

    Raises:
        DeeplayerError: the method drops several times, or does not keep the highest attention.
    """
    if len(stages) > 1 or not all(
        isinstance(stage.scorer, AttentionScorer) and isinstance(stage.selector, TopK) for stage in stages
    ):
        raise DeeplayerError(
            f"method {name} has no --keep auto:P: that is for methods that keep the highest attention, in one drop"
        )
    # With all of the attention, every token stays: not even those without any are dropped.
    return stages if mass == 1.0 else tuple(replace(stage, selector=FewestWithMass(mass, least)) for stage in stages)


def _check_order(name: str, stages: tuple[Stage, ...], n_layers: int) -> None:
    """Refuse drops that the engine would not run one after the other: it drops once between two layers.

    Raises:
        DeeplayerError: the message names the method and the layers of its drops.
    """
    layers = [stage.drop_after_layer for stage in stages]
    if any(later <= earlier for earlier, later in pairwise(layers)):
        raise DeeplayerError(
            f"method {name} drops after layers {', '.join(map(str, layers))} of {n_layers}, but each drop must come "
            "after a later layer than the drop before it: use a model of more layers, or other layers"
        )


def _check_stage(name: str, stage: Stage, *, may_adapt: bool) -> None:
    """Refuse a stage that the engine cannot run.

    Raises:
        DeeplayerError: the message names the method and the reason.
    """
    if not isinstance(stage.scorer, Scorer) or not isinstance(stage.selector, Selector):
        raise DeeplayerError(
            f"method {name}: its scorer and selector must be subclasses of deeplayer_cli.pruning.Scorer and Selector, "
            "and their `needs` must name the inputs that they read; see deeplayer_cli/pruning/methods/README.md"
        )
    for part in (stage.scorer, stage.selector):
        if not isinstance(part.needs, frozenset | set):
            raise DeeplayerError(
                f"method {name}: the `needs` of {type(part).__name__} must be a frozenset of names, not {part.needs!r}"
            )
    if stage.scorer.rows not in get_args(QueryRowKind):
        raise DeeplayerError(
            f"method {name}: the `rows` of its scorer must be {', '.join(get_args(QueryRowKind)[:-1])} or "
            f"{get_args(QueryRowKind)[-1]}, not {stage.scorer.rows!r}"
        )
    if unknown := sorted(stage.needs - NEEDS):
        raise DeeplayerError(f"method {name} needs {', '.join(unknown)}; known inputs: {', '.join(sorted(NEEDS))}")
    if stage.selector.merges and "features" not in stage.selector.needs:
        raise DeeplayerError(f"method {name}: its selector merges tokens, so its `needs` must name features")
    if stage.selector.adaptive and not may_adapt:
        raise DeeplayerError(
            f"method {name}: only the last drop may be adaptive, and only if the method does not renumber position ids"
        )


def _check_scout(name: str, stage: Stage, scout: Scout, *, is_first: bool) -> None:
    """Refuse a stage whose scout the engine cannot run, or would ignore.

    Raises:
        DeeplayerError: the message names the method and the reason.
    """
    if not is_first:
        raise DeeplayerError(f"method {name}: only the first drop may have a scout")
    if stage.reads_next_layer:
        raise DeeplayerError(
            f"method {name}: a drop scores with its scout or with the next layer: leave out scout, or "
            "score_from='next_layer'"
        )
    if scout.updates and stage.selector.merges:
        raise DeeplayerError(
            f"method {name}: merged tokens run from layer 1 on, so a scout must not update what is merged: let it "
            f"update 0 layers, not {scout.updates}"
        )
