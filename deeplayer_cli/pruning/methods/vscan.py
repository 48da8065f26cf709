"""VScan (arXiv:2505.22654), only the second of its two stages: the highest attention without RoPE."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.registry import Drop, Entry

ENTRY = Entry(
    "the tokens with the highest attention from the last prompt token, without RoPE",
    "VScan, arXiv:2505.22654, the second of its two stages",
    drops=(Drop(lambda options: AttentionScorer(options.query, rotary=False), of_32=16),),
)
