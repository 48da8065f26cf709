"""VScan (arXiv:2505.22654), only the second of its two stages: the highest attention without RoPE in the next layer."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Drop, Entry

ENTRY = Entry(
    "the tokens with the highest attention from the last prompt token in the next layer, without RoPE",
    "VScan, arXiv:2505.22654, the second of its two stages",
    drops=(Drop(lambda options: AttentionScorer(options.query, rotary=False), of_32=16, score_from="next_layer"),),
    positions="keep",
)
