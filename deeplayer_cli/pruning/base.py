"""What a pruning method is: data that names a layer, a scorer, a selector and a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from torch import Tensor

QueryRows = Literal["last", "text", "drafted"]
"""Rows of the prompt."""
Asker = QueryRows | Literal["class"] | None
"""Whose attention a scorer reads: the prompt rows', the vision tower's class token's, nobody's."""


class Evidence(NamedTuple):
    """What a scorer may look at: B prompts at one decoder layer, R query rows each, over S keys.

    Attributes:
        queries: (B, heads, R, head_dim), after RoPE if the scorer is ``rotary``; R = 0 if it reads no attention.
        keys: (B, kv_heads, S, head_dim), as the queries: the whole prompt at the scoring layer.
        visible: (B, R, S) bool, the keys that each query row attends to; a row without any is padding.
        seeds: (B,) int64, one reproducible number a prompt, the same in every batch and order.
        visual_start: index of the first visual token among the keys.
        n_visual: number of visual tokens; they are consecutive.
        features: (B, n_visual, C), what layer K puts out for each visual token; C = 0 where nobody needs them.
        text_features: (B, S - visual_start - n_visual, C), the same for the text behind the visual tokens.
        places: (B, n_visual, 3) float32, see ``token_places``.
        class_attention: (B, n_visual, heads of the vision tower) float32, what the tower's class token pays to each
            visual token; heads = 0 where nobody needs it.
    """

    queries: Tensor
    keys: Tensor
    visible: Tensor
    seeds: Tensor
    visual_start: int
    n_visual: int
    features: Tensor
    text_features: Tensor
    places: Tensor
    class_attention: Tensor


class Scorer(Protocol):
    """Turns evidence into one score per visual token; higher means keep."""

    @property
    def rows(self) -> Asker:
        """Whose attention it reads."""

    @property
    def rotary(self) -> bool:
        """Whether it wants queries and keys after RoPE, as the model's attention does, or before it."""

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return float scores, (B, n_visual)."""


class Selector(Protocol):
    """Turns scores into the tokens that stay."""

    @property
    def needs_features(self) -> bool:
        """Whether it looks at ``Evidence.features`` or ``Evidence.text_features``."""

    @property
    def compilable(self) -> bool:
        """Whether to ``torch.compile`` it; then nothing in it may depend on the values of tensors."""

    def __call__(self, scores: Tensor, evidence: Evidence, n_keep: int) -> Tensor:
        """Return sorted unique indices of the kept visual tokens, (B, n_keep) int64."""


@dataclass(frozen=True)
class Budget:
    """How many visual tokens stay, counted over all tiles and the thumbnail together.

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
        # The product of two floats can fall a hair short of the whole number it stands for: 0.29 * 100 = 28.999...
        return max(1, math.floor(self.share * n_visual + 1e-9))


@dataclass(frozen=True)
class Stage:
    """One drop of visual tokens.

    Attributes:
        drop_after_layer: 1-based; 0 = before layer 1. Later layers see what is kept.
        scorer: rates the tokens with this layer's attention.
        selector: chooses by the scores.
        budget: what stays at the end of the whole method.
        power: a stage on the way there keeps the share ``keep ** power``, so that stages of published shares scale with
            the budget: 0.5, 0.25, 0.125 are powers 1/3, 2/3 and 1 of 0.125.
        reads_next: score with the queries and keys of the next layer, on its input, instead of this layer's.
    """

    drop_after_layer: int
    scorer: Scorer
    selector: Selector
    budget: Budget
    power: float = 1.0
    reads_next: bool = False

    @property
    def leaves_open(self) -> bool:
        """Whether, as a method's first, it needs no more of its layer than keys and values: survivors finish it."""
        return self.drop_after_layer > 0 and not (self.selector.needs_features or self.reads_next)

    def count(self, n_visual: int) -> int:
        """How many of an image's ``n_visual`` tokens stay after this stage."""
        end = self.budget.count(n_visual)
        return end if self.power == 1.0 else max(end, math.floor(n_visual * (end / n_visual) ** self.power + 1e-9))


@dataclass(frozen=True)
class Method:
    """A named way to prune; no stage means that every visual token stays.

    Attributes:
        name: as in the registry.
        stages: in the order of their layers, all with the same budget.
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
        return any(stage.scorer.rows == "drafted" for stage in self.stages)

    @property
    def drops_once(self) -> bool:
        """Whether all choosing is done by what layer K sees."""
        return len(self.stages) <= 1 and not any(stage.reads_next for stage in self.stages)

    @property
    def reads_class(self) -> bool:
        """Whether the vision tower's class token scores."""
        return any(stage.scorer.rows == "class" for stage in self.stages)

    def count(self, n_visual: int) -> int:
        """How many of an image's ``n_visual`` tokens stay at the end."""
        return self.stages[-1].count(n_visual) if self.stages else n_visual

    def schedule(self, n_visual: int) -> tuple[tuple[int, int], ...]:
        """(layer dropped after, tokens left) of every stage."""
        return tuple((stage.drop_after_layer, stage.count(n_visual)) for stage in self.stages)

    def mean_keep(self, n_visual: int, n_layers: int) -> float:
        """Share of the visual tokens that a model's layers see, averaged over its ``n_layers`` layers."""
        seen, tokens, last = 0, n_visual, 0
        for layer, left in (*self.schedule(n_visual), (n_layers, 0)):
            seen += (layer - last) * tokens
            tokens, last = left, layer
        return seen / (n_layers * n_visual)
