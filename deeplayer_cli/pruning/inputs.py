"""What scorers and selectors read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from torch import Tensor

QueryRowKind = Literal["last", "text", "drafted"]
"""Rows of the prompt whose queries score: the last prompt token, the expression's tokens, or the last token of the
drafted beginning of the answer."""

Need = Literal[
    "queries",
    "keys",
    "values",
    "features",
    "text_features",
    "class_attention",
    "places",
    "weights",
    "rotation",
]
"""What a scorer or selector may ask for by name; see the fields of `ScorerInputs`."""

NEEDS: frozenset[Need] = frozenset(get_args(Need))


class ScorerInputs(NamedTuple):
    """B prompts at one decoder layer, over S keys: P0, visual tokens, P1, expression, closing, draft, padding.

    A field after ``prompt_tokens`` is there only where the scorer's or selector's ``needs`` name it; otherwise it is
    None. Nothing else is computed.

    Attributes:
        seeds: (B,) int64, one reproducible number a prompt, the same in every batch and order.
        visual_start: index of the first visual token among the keys.
        n_visual: visual tokens that are left; they are consecutive.
        prompt_tokens: (B, S) bool, false for padding, for the drafted answer, and for visual tokens that a row of a
            batch with unequal budgets no longer has.
        queries: (B, heads, R, head_dim) of the scorer's query rows, after RoPE where the scorer is ``rotary``.
        visible: (B, R, S) bool, the keys that each query row attends to; a row without any is padding. With
            ``queries``.
        keys: (B, kv_heads, S, head_dim), as the queries.
        values: (B, kv_heads, S, head_dim).
        features: (B, n_visual, C), what the layer puts out for the visual tokens; before layer 1, their embeddings.
        text_features: (B, S - visual_start - n_visual, C), the same for the text behind the visual tokens.
        class_attention: (B, n_visual, heads of the vision tower) float32, what the tower's class token pays to each
            visual token.
        places: (B, n_visual, 3) float32, see ``token_places``.
        weights: (B, n_visual) float32, how many of the image's tokens each one stands for; 1 until a selector merges.
        rotation: cosines and sines of RoPE, (1 or B, S, head_dim) each.
    """

    seeds: Tensor
    visual_start: int
    n_visual: int
    prompt_tokens: Tensor
    # Typed as present: who reads a field without asking for it has a defect, and None says so at once.
    queries: Tensor = None  # type: ignore[assignment]
    visible: Tensor = None  # type: ignore[assignment]
    keys: Tensor = None  # type: ignore[assignment]
    values: Tensor = None  # type: ignore[assignment]
    features: Tensor = None  # type: ignore[assignment]
    text_features: Tensor = None  # type: ignore[assignment]
    class_attention: Tensor = None  # type: ignore[assignment]
    places: Tensor = None  # type: ignore[assignment]
    weights: Tensor = None  # type: ignore[assignment]
    rotation: tuple[Tensor, Tensor] = None  # type: ignore[assignment]

    @property
    def visual(self) -> slice:
        """Where the visual tokens stand among the keys."""
        return slice(self.visual_start, self.visual_start + self.n_visual)
