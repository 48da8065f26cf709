"""The parts of a pruning method: stages, each with a layer, a scorer, a selector and a share of kept tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import Need, QueryRowKind, ScorerInputs

ScoreFrom = Literal["same_layer", "next_layer"]
"""The layer whose queries, keys and values score: the layer after which tokens are dropped, or the next layer.

The next layer computes them from its input, before the drop."""


Schedule = tuple[tuple[float, float], ...]
"""Points (budget, share that a stage keeps under it), by rising budget; all are shares of the visual tokens."""


class Scorer(ABC):
    """Gives each visual token a score; the higher the score, the sooner it is kept.

    Attributes:
        needs: names of the inputs that it reads.
        rows: the query rows that it reads, if it needs queries.
        rotary: True: it reads queries and keys after RoPE, as the model's attention does. False: before RoPE.
        takes_padding: whether it may get prompts of different lengths at once, padded. It must then leave out what
            ``visible`` and ``prompt_tokens`` mark. Otherwise it gets prompts of equal length, without padding and
            drafts.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    takes_padding: ClassVar[bool] = False
    rows: QueryRowKind = "last"
    rotary: bool = True

    @abstractmethod
    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return finite scores, (B, n_visual)."""


class Selection(NamedTuple):
    """The kept visual tokens of B prompts.

    Attributes:
        indices: (B, n_keep) int64, sorted and unique within a row.
        counts: (B,) int64, for budgets that depend on the content: only the first ``counts`` indices of a row are kept.
            The others are ignored, but must be valid indices. None: all are kept.
        features: (B, n_keep, C), new hidden states of the kept tokens. None: nothing is merged.
        weights: (B, n_keep) float32, the number of original visual tokens that each of ``features`` stands for. None:
            the weights do not change.
    """

    indices: Tensor
    counts: Tensor | None = None
    features: Tensor | None = None
    weights: Tensor | None = None


class Selector(ABC):
    """Chooses the kept visual tokens by their scores.

    Attributes:
        needs: names of the inputs that it reads besides the scores.
        takes_padding: see ``Scorer``.
        compilable: whether ``torch.compile`` may run it. Then nothing in it may depend on the values of tensors.
        merges: whether its selections hold ``features``; its ``needs`` must then name ``features``.
        adaptive: whether its selections hold ``counts``. Only the last stage of a method may be adaptive.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    takes_padding: ClassVar[bool] = False
    compilable: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor | Selection:
        """Return a selection, or only its ``indices``.

        Args:
            scores: (B, n_visual), from the scorer.
            inputs: the inputs that scorer and selector need.
            n_keep: the number of tokens to keep; an upper bound if the selector is adaptive.
        """

    def least(self, n_keep: int) -> int:
        """The smallest number of tokens that it keeps if it may keep ``n_keep``."""
        return 1 if self.adaptive else n_keep


@dataclass(frozen=True)
class Budget:
    """The number of visual tokens that a method keeps at its end, over all tiles and the thumbnail together.

    Attributes:
        share: share of the visual tokens, 0 < share <= 1; used if ``tokens`` is None.
        tokens: an absolute number; an image with fewer tokens keeps all.

    Raises:
        DeeplayerError: ``share`` or ``tokens`` is out of range.
    """

    share: float = 1.0
    tokens: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and 0.0 < self.share <= 1.0):
            raise DeeplayerError(f"--keep must be a share above 0 and at most 1; it was {self.share}")
        if self.tokens is not None and self.tokens < 1:
            raise DeeplayerError(f"--keep-tokens must be at least 1; it was {self.tokens}")

    def count(self, n_visual: int) -> int:
        """The number of tokens to keep of ``n_visual``: ``max(1, floor(share * n_visual))``, or ``tokens``."""
        if self.tokens is not None:
            return min(self.tokens, n_visual)
        return max(1, _floor(self.share * n_visual))


@dataclass(frozen=True)
class StageShare:
    """The number of visual tokens that one stage keeps.

    Attributes:
        budget: the budget of the whole method.
        power: the stage keeps the share ``keep ** power`` of all visual tokens; ``keep`` is the budget as a share. So
            published shares scale with the budget: 0.5, 0.25 and 0.125 are 0.125 to the powers 1/3, 2/3 and 1.
        fixed: the stage keeps this share instead, but never fewer tokens than the budget.
        schedule: the stage keeps a share that goes through these points (budget, share of the stage), instead; see
            `interpolate`.
    """

    budget: Budget
    power: float = 1.0
    fixed: float | None = None
    schedule: Schedule = ()

    def count(self, n_visual: int) -> int:
        """The largest number of an image's ``n_visual`` tokens that the stage keeps."""
        end = self.budget.count(n_visual)
        if self.fixed is not None:
            share = self.fixed
        elif self.schedule:
            share = interpolate(self.schedule, end / n_visual)
        elif self.power == 1.0:
            return end
        else:
            share = (end / n_visual) ** self.power
        return max(end, _floor(n_visual * share))


@dataclass(frozen=True)
class Stage:
    """One drop of visual tokens.

    Attributes:
        drop_after_layer: the layer after which tokens are dropped, counted from 1; 0: before layer 1.
        scorer: gives each token a score.
        selector: chooses the kept tokens.
        share: the number of tokens to keep.
        score_from: the layer whose queries, keys and values the scorer reads.
    """

    drop_after_layer: int
    scorer: Scorer
    selector: Selector
    share: StageShare
    score_from: ScoreFrom = "same_layer"

    @property
    def needs(self) -> frozenset[Need]:
        """Names of the inputs that scorer and selector read."""
        return self.scorer.needs | self.selector.needs

    @property
    def takes_padding(self) -> bool:
        """Whether scorer and selector may get prompts of different lengths at once."""
        return self.scorer.takes_padding and self.selector.takes_padding

    @property
    def reads_next_layer(self) -> bool:
        """Whether it scores with the next layer's queries, keys and values."""
        return self.score_from == "next_layer"

    @property
    def defers_layer(self) -> bool:
        """Whether the layer before the drop can be deferred, if this is the method's first stage.

        In a deferred layer, only keys and values are computed for all visual tokens. Only the kept tokens run through
        the attention output and the MLP. A stage that reads hidden states or the next layer needs the whole layer.
        """
        return self.drop_after_layer > 0 and not (self.needs & {"features", "text_features"} or self.reads_next_layer)

    def count(self, n_visual: int) -> int:
        """The largest number of an image's ``n_visual`` tokens that this stage keeps."""
        return self.share.count(n_visual)

    def least(self, n_visual: int) -> int:
        """The smallest number of an image's ``n_visual`` tokens that this stage keeps."""
        return self.selector.least(self.count(n_visual))


@dataclass(frozen=True)
class Method:
    """A pruning method for one model and one budget. Without stages, it keeps every visual token.

    Attributes:
        name: the name in the registry.
        stages: the drops, in the order of their layers.
        renumbers: whether layers after a drop number the positions without gaps. Otherwise position ids do not change.
        freeze_after_layer: the layer after which visual tokens are frozen, counted from 1; 0: before layer 1;
            None: they are not. Later layers do not update their hidden states, but project keys and values from these.
    """

    name: str
    stages: tuple[Stage, ...] = ()
    renumbers: bool = False
    freeze_after_layer: int | None = None

    @property
    def layer(self) -> int | None:
        """The layer of the first drop; this layer and the layers before it see all tokens.

        Without a drop, the layer after which visual tokens are frozen; None if they are not.
        """
        return self.stages[0].drop_after_layer if self.stages else self.freeze_after_layer

    @property
    def reads_class_attention(self) -> bool:
        """Whether a stage reads the attention of the vision tower's class token."""
        return any("class_attention" in stage.needs for stage in self.stages)

    @property
    def drops_once(self) -> bool:
        """Whether kept tokens of several rows can form a union.

        That needs at most one drop, which scores with its own layer, does not merge tokens and is not adaptive.
        """
        return len(self.stages) <= 1 and not any(
            stage.reads_next_layer or stage.selector.merges or stage.selector.adaptive for stage in self.stages
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether the number of kept tokens depends on the content."""
        return any(stage.selector.adaptive for stage in self.stages)

    def count(self, n_visual: int) -> int:
        """The largest number of an image's ``n_visual`` tokens that are kept after the last drop."""
        return self.stages[-1].count(n_visual) if self.stages else n_visual

    def prunes(self, n_visual: int) -> bool:
        """Whether any of an image's ``n_visual`` tokens can be dropped or merged."""
        return any(stage.least(n_visual) < n_visual for stage in self.stages)

    def updated_layers(self, n_layers: int) -> int:
        """How many of ``n_layers`` decoder layers update the hidden states of visual tokens, from layer 1 on.

        Nothing reads what the last layer would put out for visual tokens, so it never updates them.
        """
        return n_layers - 1 if self.freeze_after_layer is None else min(self.freeze_after_layer, n_layers - 1)

    def prefix_layers(self, n_visual: int, n_layers: int) -> tuple[int, int]:
        """K, and how many of layers 1..K update the visual tokens while the prefix of an image runs through them.

        Layers 1..K run once for all expressions about the image; if nothing is dropped, these are all layers.

        Args:
            n_visual: number of visual tokens of the image.
            n_layers: number of decoder layers of the model.
        """
        updated = self.updated_layers(n_layers)
        if not self.prunes(n_visual):
            return n_layers, updated
        first = self.stages[0]
        return first.drop_after_layer, min(updated, first.drop_after_layer - first.defers_layer)

    def schedule(self, n_visual: int, n_kept: int | None = None) -> tuple[tuple[int, int], ...]:
        """(layer of the drop, number of kept tokens) for every stage.

        Args:
            n_visual: number of visual tokens of the image.
            n_kept: number of tokens that were really kept at the end, for a method whose budget depends on the content;
                None for the upper bound.
        """
        counts = [stage.count(n_visual) for stage in self.stages]
        if n_kept is not None and counts:
            counts[-1] = n_kept
        return tuple((stage.drop_after_layer, count) for stage, count in zip(self.stages, counts, strict=True))

    def mean_keep(self, n_visual: int, n_layers: int, n_kept: int | None = None) -> float:
        """Share of the visual tokens that a layer sees, as a mean over the model's layers.

        Args:
            n_visual: number of visual tokens of the image.
            n_layers: number of decoder layers of the model.
            n_kept: see `schedule`.
        """
        seen, tokens, last = 0, n_visual, 0
        for layer, left in (*self.schedule(n_visual, n_kept), (n_layers, 0)):
            seen += (layer - last) * tokens
            tokens, last = left, layer
        return seen / (n_layers * n_visual)


def interpolate(schedule: Schedule, keep: float) -> float:
    """The share that a stage keeps under a budget of ``keep``.

    Between two points of the schedule, the share is a power of the budget: a straight line if both are logarithms. The
    last point is followed by (1, 1). Below the first point, the share is in the same ratio to the budget as there.
    """
    (low, share_low), *_ = schedule
    if keep <= low:
        return keep * share_low / low
    for high, share_high in (*schedule[1:], (1.0, 1.0)):
        if keep <= high:
            part = math.log(keep / low) / math.log(high / low)
            return share_low * (share_high / share_low) ** part
        low, share_low = high, share_high
    return 1.0


def _floor(product: float) -> int:
    """Round down, but allow for rounding errors of a product: ``0.29 * 100`` is 28.999999999999996 and gives 29."""
    return math.floor(product + 1e-9)
