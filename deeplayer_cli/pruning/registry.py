"""The methods that there are, each a line of data; others join through the entry-point group ``deeplayer.methods``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.base import Budget, Method, QueryRows, Scorer, Selector, Stage
from deeplayer_cli.pruning.class_attention import ClassAttentionScorer
from deeplayer_cli.pruning.independent_set import IndependentSet
from deeplayer_cli.pruning.max_min import MaxMin, NoScore
from deeplayer_cli.pruning.random import RandomScorer
from deeplayer_cli.pruning.relative import Prior, RelativeScorer
from deeplayer_cli.pruning.topk import GridAndTopK, TopK
from deeplayer_cli.pruning.uniform import UniformScorer
from deeplayer_cli.pruning.unlike_pivots import KeyNormScorer, UnlikePivots

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
        grounding_layer: where the model says that its attention finds the object; takes the place of layer 12 of 32.
        query: the prompt rows whose attention scores, for methods that read attention.
        prior: attention by place, for methods that are calibrated.
    """

    budget: Budget
    layer: int | None = None
    grounding_layer: int | None = None
    query: QueryRows = "last"
    prior: Prior | None = None


@dataclass(frozen=True)
class Drop:
    """One of a method's drops, as published for a model of 32 layers; other depths drop in proportion.

    Attributes:
        layer: 1-based, of 32.
        power: see ``Stage``.
        selector: turns scores into tokens.
        reads_next: see ``Stage``.
    """

    layer: int
    power: float = 1.0
    selector: Selector = _TOP_K
    reads_next: bool = False

    def layer_in(self, n_layers: int) -> int:
        """The layer that it drops after in a model of ``n_layers``."""
        return max(1, round(self.layer * n_layers / 32))


@dataclass(frozen=True)
class Entry:
    """A method as data.

    Attributes:
        summary: what stays, in a few words.
        source: the paper or repository that it follows.
        scorer: makes the scorer from the options; None for a method that prunes nothing.
        selector: turns scores into tokens.
        layer: the 1-based layer that it drops after, unless the user says otherwise; None for the model's grounding
            layer or else the paper's layer 12 of 32, carried over to the model's depth.
        is_calibrated: it needs a prior, and drops after the prior's layer.
        drops: instead of ``selector`` and ``layer``, for a method that drops elsewhere or more than once.
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
    def after(self) -> str | None:
        """The layers that it drops after, in words."""
        if self.scorer is None:
            return None
        if self.layer is not None:
            return f"{self.layer}, calibrated" if self.is_calibrated else str(self.layer)
        return ", ".join(str(drop.layer) for drop in self.drops or (Drop(12),)) + " of 32"

    def build(self, name: str, options: Options, n_layers: int) -> Method:
        """The method for a model of ``n_layers`` decoder layers.

        Raises:
            DeeplayerError: a layer is given for a method that drops after several.
        """
        if self.scorer is None:
            return Method(name)
        scorer, drops = self.scorer(options), self.drops or (Drop(12, selector=self.selector),)
        layers = [drop.layer_in(n_layers) for drop in drops]
        if options.layer is not None and len(drops) > 1:
            raise DeeplayerError(f"--layer {options.layer}: {name} drops after layers {layers} of {n_layers}, not one")
        if len(drops) == 1:
            calibrated = options.prior.layer if self.is_calibrated and options.prior else None
            grounding = None if self.drops else options.grounding_layer
            choices = (options.layer, calibrated, self.layer, grounding, *layers)
            layers = [layer for layer in choices if layer is not None][:1]
        return Method(
            name,
            tuple(
                Stage(layer, scorer, drop.selector, options.budget, drop.power, drop.reads_next)
                for layer, drop in zip(layers, drops, strict=True)
            ),
            self.renumbers,
        )


def _relative(options: Options) -> Scorer:
    if options.prior is None:
        raise DeeplayerError("d2pruner needs --prior FILE, which `deeplayer calibrate` makes from images")
    if options.layer not in (None, options.prior.layer):
        raise DeeplayerError(
            f"--layer {options.layer}: the prior is of layer {options.prior.layer}, and every layer has its own"
        )
    return RelativeScorer(options.prior)


_PYRAMID = (Drop(8, 1 / 3, reads_next=True), Drop(16, 2 / 3, reads_next=True), Drop(24, reads_next=True))
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
        "the most attended by the answer's draft, about to write the box",
        "this project's own",
        lambda _: AttentionScorer("drafted"),
    ),
    "fastv": Entry(
        "the most attended at layer 2",
        "FastV (arXiv:2403.06764)",
        lambda options: AttentionScorer(options.query),
        layer=2,
    ),
    "d2pruner": Entry(
        "the most attended compared with a prior; pivots, then tokens unlike them (S_spat is ours)",
        "D2Pruner (arXiv:2512.19443)",
        _relative,
        IndependentSet(),
        layer=2,
        is_calibrated=True,
    ),
    "pyramiddrop": Entry(
        "the most attended, in three steps",
        "PyramidDrop (arXiv:2410.17247), position ids kept",
        lambda options: AttentionScorer(options.query),
        drops=_PYRAMID,
    ),
    "pyramiddrop-renumbered": Entry(
        "the same; position ids of later layers are counted anew",
        "PyramidDrop (arXiv:2410.17247), as published: it shows what renumbering costs",
        lambda options: AttentionScorer(options.query),
        drops=_PYRAMID,
        renumbers=True,
    ),
    "sparsevlm-nomerge": Entry(
        "the most attended by the expression, in three steps; nothing is merged",
        "SparseVLM (arXiv:2410.04417); that all of the expression rates is ours",
        lambda _: AttentionScorer("text"),
        # 300, 200 and 110 of 576 tokens
        drops=(Drop(2, 0.394), Drop(6, 0.639), Drop(15)),
    ),
    "feather": Entry(
        "a grid and the most attended without RoPE; of these again the most attended",
        "FEATHER (arXiv:2412.13180)",
        lambda options: AttentionScorer(options.query, rotary=False),
        # 30% and a ninth of the rest, then 9% of these
        drops=(Drop(8, 0.288, GridAndTopK()), Drop(16)),
    ),
    "vscan": Entry(
        "the most attended without RoPE",
        "VScan (arXiv:2505.22654), the second of its stages",
        lambda options: AttentionScorer(options.query, rotary=False),
        drops=(Drop(16),),
    ),
    "divprune": Entry(
        "the most diverse before the language model",
        "DivPrune (arXiv:2503.02175)",
        lambda _: NoScore(),
        MaxMin(),
        layer=0,
    ),
    "dart": Entry(
        "a few pivots, then the tokens least like each of them",
        "DART (arXiv:2502.11494); that pivots take turns by key norm is ours",
        lambda _: KeyNormScorer(),
        UnlikePivots(),
        layer=2,
    ),
    "visionzip-nomerge": Entry(
        "the most attended by the vision tower's class token, before the language model; nothing is merged",
        "VisionZip (arXiv:2412.04467); that patches are summed and tiles compete is ours",
        lambda _: ClassAttentionScorer(),
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
        check_layer(stage, n_layers)
    return method


def check_layer(stage: Stage, n_layers: int) -> None:
    """Refuse a layer that is not there, has nothing behind it, or comes before the attention that the stage reads.

    Raises:
        DeeplayerError: it says which layers there are.
    """
    first = 0 if stage.scorer.rows in (None, "class") else 1
    if not first <= stage.drop_after_layer < n_layers:
        raise DeeplayerError(
            f"--layer {stage.drop_after_layer} is out of range: this model has {n_layers} decoder layers, "
            f"and tokens can be dropped after layers {first} to {n_layers - 1}"
        )
