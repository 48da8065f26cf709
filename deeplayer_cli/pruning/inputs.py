"""The inputs of scorers and selectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from torch import Tensor

QueryRowKind = Literal["last", "text", "question", "drafted"]
"""The query rows that score.

``last``: the last prompt token. ``text``: the expression's tokens. ``question``: all prompt tokens after the image.
``drafted``: the last token of the draft.
"""

Need = Literal[
    "queries",
    "keys",
    "values",
    "features",
    "text_features",
    "image_embeddings",
    "text_embeddings",
    "class_attention",
    "vision_keys",
    "places",
    "weights",
    "rotation",
]
"""Names of the inputs that a scorer or selector can need; see the fields of `ScorerInputs`."""

NEEDS: frozenset[Need] = frozenset(get_args(Need))


class ScorerInputs(NamedTuple):
    """The inputs for B prompts at one decoder layer.

    The S keys of a prompt are, in this order: P0, visual tokens, P1, expression, closing, draft, padding. A field after
    ``prompt_tokens`` is computed only if the scorer's or selector's ``needs`` name it; otherwise it is None.

    Attributes:
        seeds: (B,) int64, one reproducible number for each prompt; it does not depend on batch or order.
        visual_start: index of the first visual token among the keys.
        n_visual: number of visual tokens that are still kept; they are consecutive.
        prompt_tokens: (B, S) bool, True where a key belongs to the prompt; False for padding and for the draft.
        queries: (B, heads, R, head_dim) of the scorer's query rows; after RoPE if the scorer is ``rotary``, or else
            before RoPE.
        visible: (B, R, S) bool, the keys that each query row attends to. A row that is False everywhere is padding. It
            comes with ``queries``.
        keys: (B, kv_heads, S, head_dim); after or before RoPE, as the queries.
        values: (B, kv_heads, S, head_dim).
        features: (B, n_visual, C), hidden states of the visual tokens after the layer; for layer 0, their embeddings.
        text_features: (B, S - visual_start - n_visual, C), the same for the text after the visual tokens.
        image_embeddings: (B, N, C), the input of layer 1 for all N visual tokens of the image, dropped ones too.
        text_embeddings: (B, S - visual_start - n_visual, C), the same for the text after the visual tokens.
        class_attention: (B, n_visual, heads of the vision tower) float32, attention from the tower's class token to
            each visual token.
        vision_keys: (B, n_visual, head_dim of the vision tower), key of each visual token in the layer of that
            attention, as a mean over heads.
        places: (B, n_visual, 3) float32, see ``token_places``.
        weights: (B, n_visual) float32, the number of original visual tokens that each token stands for; 1 until a
            selector merges tokens.
        rotation: cosines and sines of RoPE, (1 or B, S, head_dim) each.
    """

    seeds: Tensor
    visual_start: int
    n_visual: int
    prompt_tokens: Tensor
    # The types leave out None: code that reads a field without naming it in `needs` is wrong, and fails at once.
    queries: Tensor = None  # type: ignore[assignment]
    visible: Tensor = None  # type: ignore[assignment]
    keys: Tensor = None  # type: ignore[assignment]
    values: Tensor = None  # type: ignore[assignment]
    features: Tensor = None  # type: ignore[assignment]
    text_features: Tensor = None  # type: ignore[assignment]
    image_embeddings: Tensor = None  # type: ignore[assignment]
    text_embeddings: Tensor = None  # type: ignore[assignment]
    class_attention: Tensor = None  # type: ignore[assignment]
    vision_keys: Tensor = None  # type: ignore[assignment]
    places: Tensor = None  # type: ignore[assignment]
    weights: Tensor = None  # type: ignore[assignment]
    rotation: tuple[Tensor, Tensor] = None  # type: ignore[assignment]

    def without_padding(self, rows: Tensor, n_keys: int, n_rows: int) -> ScorerInputs:
        """The inputs of some prompts alone, with only the first ``n_keys`` keys.

        Args:
            rows: (b,) indices of prompts of the same length.
            n_keys: the number of keys to leave; the others are padding, or a draft that is not read.
            n_rows: the largest number of query rows of these prompts.
        """
        n_text = n_keys - self.visual.stop
        ends = {  # in which dimension to cut, and where
            "prompt_tokens": (1, n_keys),
            "queries": (2, n_rows),
            "visible": (1, n_rows),
            "keys": (2, n_keys),
            "values": (2, n_keys),
            "text_features": (1, n_text),
            "text_embeddings": (1, n_text),
        }
        found: dict[str, Any] = {}
        for name, whole in self._asdict().items():
            if hasattr(whole, "shape"):
                dimension, end = ends.get(name, (0, len(rows)))
                found[name] = whole[rows].narrow(dimension, 0, end)
        if self.visible is not None:
            found["visible"] = found["visible"][..., :n_keys]
        if self.rotation is not None:
            cos, sin = (part.expand(len(self.seeds), -1, -1)[rows, :n_keys] for part in self.rotation)
            found["rotation"] = cos, sin
        return self._replace(**found)

    @property
    def visual(self) -> slice:
        """The slice of the visual tokens among the keys."""
        return slice(self.visual_start, self.visual_start + self.n_visual)
