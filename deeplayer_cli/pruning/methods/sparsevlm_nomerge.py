"""SparseVLM (arXiv:2410.04417) without merging: three drops, scored with the attention from the expression."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.registry import Drop, Entry

ENTRY = Entry(
    "the tokens with the highest attention from the expression's tokens, in three steps; nothing is merged",
    "SparseVLM, arXiv:2410.04417. Ours: all tokens of the expression score",
    # The powers give the published 300, 200 and 110 of 576 tokens at a budget of 110.
    drops=tuple(
        Drop(lambda _: AttentionScorer("text"), of_32=layer, power=power)
        for layer, power in ((2, 0.394), (6, 0.639), (15, 1.0))
    ),
)
