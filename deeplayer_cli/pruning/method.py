"""The parts of a pruning method: stages, each with a layer, a scorer, a selector and a share of kept tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.budget import StageShare
    from deeplayer_cli.pruning.inputs import Need, QueryRowKind, ScorerInputs

ScoreFrom = Literal["same_layer", "next_layer"]
"""The layer whose queries, keys and values score: the layer after which tokens are dropped, or the next layer.

The next layer computes them from its input, before the drop."""


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
class Scout:
    """A pass of its own that only scores. All visual tokens take part, but most of its layers do not update them.

    The tokens that its scores choose then run through all layers, from layer 1 on, without the others.

    Attributes:
        layer: the layer whose queries, keys and values score, counted from 1; it is the scout's last layer.
        updates: number of layers, from layer 1 on, that update the hidden states of the visual tokens. The others only
            project their keys and values.
    """

    layer: int
    updates: int = 0


@dataclass(frozen=True)
class Stage:
    """One drop of visual tokens.

    Attributes:
        drop_after_layer: the layer after which tokens are dropped, counted from 1; 0: before layer 1.
        scorer: gives each token a score.
        selector: chooses the kept tokens.
        share: the number of tokens to keep.
        score_from: the layer whose queries, keys and values the scorer reads.
        scout: the pass whose queries, keys and values the scorer reads instead; only for the first drop of a method,
            before layer 1, with ``score_from`` as it is by default.
    """

    drop_after_layer: int
    scorer: Scorer
    selector: Selector
    share: StageShare
    score_from: ScoreFrom = "same_layer"
    scout: Scout | None = None

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

        With a scout, the scout's last layer. Without a drop, the layer after which visual tokens are frozen; None if
        they are not.
        """
        if self.scout is not None:
            return self.scout.layer
        return self.stages[0].drop_after_layer if self.stages else self.freeze_after_layer

    @property
    def scout(self) -> Scout | None:
        """The scout of the first drop."""
        return self.stages[0].scout if self.stages else None

    @property
    def reads_vision_attention(self) -> bool:
        """Whether a stage reads the keys of the vision tower, or the attention of its class token."""
        return any(stage.needs & {"class_attention", "vision_keys"} for stage in self.stages)

    @property
    def union_obstacle(self) -> str | None:
        """Why kept tokens of several rows cannot form a union, as the rest of a sentence; None if they can.

        A union needs at most one drop, which does not score with the next layer, merges nothing and is not adaptive.
        """
        if len(self.stages) > 1:
            return "drops in several steps"
        if any(stage.reads_next_layer for stage in self.stages):
            return "scores with the layer after the drop"
        if any(stage.selector.merges for stage in self.stages):
            return "merges tokens"
        return "keeps a number of tokens that follows the row" if self.is_adaptive else None

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

    def scouts(self, n_visual: int) -> bool:
        """Whether a scout runs for an image of ``n_visual`` tokens; not if all of them are kept."""
        return self.scout is not None and self.prunes(n_visual)

    def updated_layers(self, n_layers: int) -> int:
        """How many of ``n_layers`` decoder layers update the hidden states of visual tokens, from layer 1 on.

        Nothing reads what the last layer would put out for visual tokens, so it never updates them.
        """
        return n_layers - 1 if self.freeze_after_layer is None else min(self.freeze_after_layer, n_layers - 1)

    def defers_layer_k(self, n_layers: int) -> bool:
        """Whether layer K is deferred, the layer before the first drop: if it can be, and updates visual tokens."""
        first = self.stages[0]
        return first.defers_layer and first.drop_after_layer <= self.updated_layers(n_layers)

    def prefix_layers(self, n_visual: int, n_layers: int) -> tuple[int, int]:
        """K, and how many of layers 1..K update the visual tokens while the prefix of an image runs through them.

        Layers 1..K run once for all expressions about the image. They are the layers until the first drop, or those of
        a scout; if nothing is dropped, they are all layers.

        Args:
            n_visual: number of visual tokens of the image.
            n_layers: number of decoder layers of the model.
        """
        updated = self.updated_layers(n_layers)
        if not self.prunes(n_visual):
            return n_layers, updated
        first = self.stages[0]
        if first.scout is not None:
            return first.scout.layer, min(first.scout.updates, first.scout.layer - 1)
        return first.drop_after_layer, min(updated, first.drop_after_layer) - self.defers_layer_k(n_layers)

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
