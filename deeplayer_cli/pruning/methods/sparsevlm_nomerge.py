"""SparseVLM (arXiv:2410.04417) without merging: the expression's tokens score, in three drops."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.registry import Drop, Entry

ENTRY = Entry(
    "the tokens with the highest attention of the expression, in three steps; nothing is merged",
    "SparseVLM (arXiv:2410.04417); that all of the expression rates is ours",
    # 300, 200 and 110 of 576 tokens
    drops=tuple(
        Drop(lambda _: AttentionScorer("text"), of_32=layer, power=power)
        for layer, power in ((2, 0.394), (6, 0.639), (15, 1.0))
    ),
)
