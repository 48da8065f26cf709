"""What a pruning method is: stages as data, each with a layer, a scorer, a selector and a share of its own."""

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
"""Whose queries, keys and values score: those of the layer that tokens are dropped after, or the next layer's on its
input."""


class Scorer(ABC):
    """Rates visual tokens; a higher score means keep.

    Attributes:
        needs: the inputs that it reads.
        rows: whose queries it reads, if it needs any.
        rotary: whether it wants queries and keys after RoPE, as the model's attention does, or before it.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    rows: QueryRowKind = "last"
    rotary: bool = True

    @abstractmethod
    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores, (B, n_visual), finite."""


class Selection(NamedTuple):
    """The visual tokens that stay, and what becomes of them.

    Attributes:
        indices: (B, n_keep) int64, sorted and unique within a row.
        counts: (B,) int64, for budgets that depend on the content: only the first so many of a row's indices stay; the
            others may be any. None for all.
        features: (B, n_keep, C), what takes the place of the kept tokens' hidden states. None where nothing is merged.
        weights: (B, n_keep) float32, how many of the image's tokens each of ``features`` stands for. None for as many
            as before.
    """

    indices: Tensor
    counts: Tensor | None = None
    features: Tensor | None = None
    weights: Tensor | None = None


class Selector(ABC):
    """Turns scores into the visual tokens that stay.

    Attributes:
        needs: the inputs that it reads besides the scores.
        compilable: whether to ``torch.compile`` it; then nothing in it may depend on the values of tensors.
        merges: whether its selections hold ``features``; it must then need ``features``.
        adaptive: whether its selections hold ``counts``; only a method's last stage may.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    compilable: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor | Selection:
        """Return a selection, or its ``indices`` alone.

        Args:
            scores: (B, n_visual).
            inputs: as the scorer's, with what the selector needs.
            n_keep: how many tokens stay, at most.
        """

    def least(self, n_keep: int) -> int:
        """The fewest tokens that it keeps where it may keep ``n_keep``."""
        return 1 if self.adaptive else n_keep


@dataclass(frozen=True)
class Budget:
    """How many visual tokens stay at a method's end, counted over all tiles and the thumbnail together.

    Attributes:
        share: 0 < share <= 1, used unless ``tokens`` is given.
        tokens: an absolute number, capped at what the image has.
    """

    share: float = 1.0
    tokens: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and 0.0 < self.share <= 1.0):
            raise DeeplayerError(f"--keep is a share of the visual tokens, above 0 and at most 1; it was {self.share}")
        if self.tokens is not None and self.tokens < 1:
            raise DeeplayerError(f"--keep-tokens must be at least 1; it was {self.tokens}")

    def count(self, n_visual: int) -> int:
        """Tokens to keep of ``n_visual``: ``max(1, floor(share * n_visual))``, or the absolute number."""
        if self.tokens is not None:
            return min(self.tokens, n_visual)
        return max(1, _floor(self.share * n_visual))


@dataclass(frozen=True)
class StageShare:
    """How many visual tokens stay after one stage.

    Attributes:
        budget: what stays at the end of the whole method.
        power: the stage keeps the share ``keep ** power``, so that stages of published shares scale with the budget:
            0.5, 0.25, 0.125 are powers 1/3, 2/3 and 1 of 0.125.
        fixed: the stage keeps this share instead, whatever the budget, but never fewer tokens than the budget.
    """

    budget: Budget
    power: float = 1.0
    fixed: float | None = None

    def count(self, n_visual: int) -> int:
        """How many of an image's ``n_visual`` tokens stay, at most."""
        end = self.budget.count(n_visual)
        if self.fixed is not None:
            return max(end, _floor(n_visual * self.fixed))
        return end if self.power == 1.0 else max(end, _floor(n_visual * (end / n_visual) ** self.power))


@dataclass(frozen=True)
class Stage:
    """One drop of visual tokens.

    Attributes:
        drop_after_layer: 1-based; 0 = before layer 1. Later layers see what is kept.
        scorer: rates the tokens.
        selector: chooses by the scores.
        share: how many stay.
        score_from: whose queries, keys and values the scorer reads.
    """

    drop_after_layer: int
    scorer: Scorer
    selector: Selector
    share: StageShare
    score_from: ScoreFrom = "same_layer"

    @property
    def needs(self) -> frozenset[Need]:
        """The inputs that scorer and selector read."""
        return self.scorer.needs | self.selector.needs

    @property
    def reads_next_layer(self) -> bool:
        """Whether it scores with the next layer's queries, keys and values."""
        return self.score_from == "next_layer"

    @property
    def defers_layer(self) -> bool:
        """Whether, as a method's first, it needs only keys and values of its layer.

        Then the layer's attention output and MLP are deferred: only the kept tokens run through them.
        """
        return self.drop_after_layer > 0 and not (self.needs & {"features", "text_features"} or self.reads_next_layer)

    def count(self, n_visual: int) -> int:
        """How many of an image's ``n_visual`` tokens stay after this stage, at most."""
        return self.share.count(n_visual)

    def least(self, n_visual: int) -> int:
        """How many stay at least."""
        return self.selector.least(self.count(n_visual))


@dataclass(frozen=True)
class Method:
    """A named way to prune; no stage means that every visual token stays.

    Attributes:
        name: as in the registry.
        stages: in the order of their layers.
        renumbers: layers after a drop count positions without gaps; otherwise position ids stay the original ones.
    """

    name: str
    stages: tuple[Stage, ...] = ()
    renumbers: bool = False

    @property
    def layer(self) -> int | None:
        """The layer of the first drop: until there every token is seen. None where nothing is dropped."""
        return self.stages[0].drop_after_layer if self.stages else None

    @property
    def reads_draft(self) -> bool:
        """Whether a drafted answer's row scores."""
        return any("queries" in stage.scorer.needs and stage.scorer.rows == "drafted" for stage in self.stages)

    @property
    def reads_class_attention(self) -> bool:
        """Whether the vision tower's class token scores."""
        return any("class_attention" in stage.needs for stage in self.stages)

    @property
    def drops_once(self) -> bool:
        """Whether all tokens are chosen by what layer K sees, and none are merged: what a union can be made of."""
        return len(self.stages) <= 1 and not any(
            stage.reads_next_layer or stage.selector.merges or stage.selector.adaptive for stage in self.stages
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether the number of tokens that stay depends on the content."""
        return any(stage.selector.adaptive for stage in self.stages)

    def count(self, n_visual: int) -> int:
        """How many of an image's ``n_visual`` tokens stay at the end, at most."""
        return self.stages[-1].count(n_visual) if self.stages else n_visual

    def prunes(self, n_visual: int) -> bool:
        """Whether any of an image's ``n_visual`` tokens can be dropped or merged."""
        return any(stage.least(n_visual) < n_visual for stage in self.stages)

    def schedule(self, n_visual: int, n_kept: int | None = None) -> tuple[tuple[int, int], ...]:
        """(layer dropped after, tokens left) of every stage.

        Args:
            n_visual: of the image.
            n_kept: how many really stayed at the end, where that depends on the content; None for the most.
        """
        counts = [stage.count(n_visual) for stage in self.stages]
        if n_kept is not None and counts:
            counts[-1] = n_kept
        return tuple((stage.drop_after_layer, count) for stage, count in zip(self.stages, counts, strict=True))

    def mean_keep(self, n_visual: int, n_layers: int, n_kept: int | None = None) -> float:
        """Share of the visual tokens that a model's ``n_layers`` layers see, on average; arguments as `schedule`'s."""
        seen, tokens, last = 0, n_visual, 0
        for layer, left in (*self.schedule(n_visual, n_kept), (n_layers, 0)):
            seen += (layer - last) * tokens
            tokens, last = left, layer
        return seen / (n_layers * n_visual)


def _floor(product: float) -> int:
    """Rounded down, where the product of two floats may fall a hair short of the number it stands for: 0.29 * 100."""
    return math.floor(product + 1e-9)
