"""IVC-Prune (arXiv:2602.03060), its rule for InternVL2.5: tokens by place, and by values in the thumbnail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.pruning.entry import Drop, Entry
from deeplayer_cli.pruning.method import Scorer, Selector
from deeplayer_cli.pruning.topk import ranks

if TYPE_CHECKING:
    from torch import Tensor

    from deeplayer_cli.pruning.inputs import ScorerInputs

_SEEDS = 0.01
_BY_PLACE = 0.2
_AFTER_IMAGE = 2


def value_similarity(inputs: ScorerInputs, rows: Tensor) -> Tensor:
    """How similar the values of some tokens are to those of each visual token.

    For each head, ``softmax(v v^T / sqrt(head_dim))`` runs over all tokens of the prompt, later ones too. The
    result is a mean over heads and rows.

    Args:
        inputs: with values (B, kv_heads, S, head_dim).
        rows: (B, S) bool, the tokens whose rows count.

    Returns:
        (B, n_visual) float32.
    """
    values = inputs.values.float()
    n_rows = int(rows.sum(1).max())
    order = rows.int().argsort(dim=1, descending=True, stable=True)[:, :n_rows]  # (B, R), padded with other tokens
    chosen = values.take_along_dim(order[:, None, :, None], dim=2)
    logits = chosen @ values.mT * values.shape[-1] ** -0.5  # (B, kv_heads, R, S)
    logits = logits.masked_fill(~inputs.prompt_tokens[:, None, None], -torch.inf)
    similarity = logits.softmax(-1)[..., inputs.visual].mean(1)  # (B, R, n_visual)
    counts = rows.gather(1, order)
    return (similarity * counts[..., None]).sum(1) / counts.sum(1, keepdim=True)


def text_rows(inputs: ScorerInputs) -> Tensor:
    """The prompt's tokens after the image, but not the two that close it (``</img>``, line break): (B, S) bool."""
    index = torch.arange(inputs.prompt_tokens.shape[1], device=inputs.prompt_tokens.device)
    return inputs.prompt_tokens & (index >= inputs.visual.stop + _AFTER_IMAGE)


@dataclass(frozen=True)
class ValueScorer(Scorer):
    """The similarity of each visual token's values to the text's values, see `value_similarity`."""

    needs = frozenset({"values"})
    takes_padding = True

    def __call__(self, inputs: ScorerInputs) -> Tensor:
        """Return scores (B, n_visual) float32."""
        return value_similarity(inputs, text_rows(inputs))


@dataclass(frozen=True)
class PlacesAndForeground(Selector):
    """Keeps tokens at certain positions in every tile, and what the thumbnail shows to be about the text.

    With k the share of the tokens to keep, and T tokens a tile:

    1. In each tile and the thumbnail, the ``0.2 k T`` tokens whose positions have the highest mean cosine of RoPE are
       kept, and as many with the highest mean sine.
    2. The 1% of the thumbnail's tokens with the highest scores are seeds. All are scored anew, by text and seeds.
    3. The best of the thumbnail's other tokens fill it up to the share k. The tiles' tokens at their places are kept.
    4. With the seeds, these are the priority. If they are too many, the last ones are dropped. If they are too few, the
       best tokens of the thumbnail fill up, then those of the tiles.

    The published rule is for k = 0.5. Our choices: shares of a tile scale with k; the published rule leaves the budget
    short when the thumbnail has no more tokens; and the keys and values of the layers before the drop stay whole while
    the answer is decoded. For an image of one tile, that tile is the thumbnail.
    """

    needs = frozenset({"values", "rotation", "places"})
    takes_padding = True

    def __call__(self, scores: Tensor, inputs: ScorerInputs, n_keep: int) -> Tensor:
        """Return sorted indices, (B, n_keep) int64."""
        n_visual = scores.shape[1]
        side = int((inputs.places[0, :, 1] >= 1).int().argmax()) or 1  # tokens in the first row of a tile
        n_tile = side * side
        share = n_keep / n_visual
        thumbnail = torch.arange(n_visual, device=scores.device) >= n_visual - n_tile
        seeds = _best(scores.masked_fill(~thumbnail, -torch.inf), max(1, round(_SEEDS * n_tile)))
        rows = text_rows(inputs)
        rows[:, inputs.visual] |= seeds
        rescored = value_similarity(inputs, rows)
        by_place = self._by_place(inputs, max(1, round(_BY_PLACE * share * n_tile)), n_tile)
        wanted = (max(1, round(share * n_tile)) - (by_place & thumbnail).sum(1)).clamp(min=0)  # (B,)
        rank = ranks(rescored.masked_fill(by_place | ~thumbnail, -torch.inf))
        foreground = (rank < wanted[:, None]) & thumbnail & ~by_place
        priority = by_place | foreground | self._under(foreground, inputs.places, side) | seeds
        # Order: the priority by index, then the thumbnail and then the tiles, each by falling score.
        filling = ranks(rescored.masked_fill(priority, -torch.inf)) + n_visual * (1 + ~thumbnail)
        index = torch.arange(n_visual, device=scores.device).expand_as(filling)
        turn = torch.where(priority, index, filling)
        return turn.argsort(dim=1)[:, :n_keep].sort(dim=1).values

    def _by_place(self, inputs: ScorerInputs, n: int, n_tile: int) -> Tensor:
        """The tokens of each tile whose RoPE has the n highest mean cosines or sines, (B, n_visual) bool."""
        chosen = torch.zeros_like(inputs.places[..., 0], dtype=torch.bool)
        for part in inputs.rotation:
            means = part[:, inputs.visual].float().mean(-1).unflatten(1, (-1, n_tile))  # (B or 1, tiles, n_tile)
            chosen |= _best(means, n).flatten(1)
        return chosen

    def _under(self, foreground: Tensor, places: Tensor, side: int) -> Tensor:
        """The tiles' tokens at the places of the foreground tokens of the thumbnail, (B, n_visual) bool."""
        x, y, level = places.long().unbind(-1)
        on_tiles = level == 0
        columns, rows = ((part.masked_fill(~on_tiles, -1).amax(1, keepdim=True) + 1) // side for part in (x, y))
        thumbnail = foreground[:, -side * side :]
        at = y // rows.clamp(min=1) * side + x // columns.clamp(min=1)
        return thumbnail.gather(1, at.clamp(max=side * side - 1)) & on_tiles


def _best(scores: Tensor, n: int) -> Tensor:
    """Which scores are the n highest of their row, bool in the shape of ``scores``."""
    return ranks(scores) < n


ENTRY = Entry(
    "tokens at certain positions of every tile, and those whose values are like the text's",
    "IVC-Prune, arXiv:2602.03060; published for --keep 0.5. Ours: other budgets",
    drops=(Drop(lambda _: ValueScorer(), PlacesAndForeground(), of_32=16),),
    positions="keep",
)
