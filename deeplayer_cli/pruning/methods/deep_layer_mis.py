"""Deep-Layer Attention Pruning (clawRxiv 2604.00591) as the paper ran it: D2Pruner's pivots and independent set."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.independent_set import IndependentSet
from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry(
    "the same scores; pivots, then tokens unlike them (S_spat is ours)",
    "Deep-Layer Attention Pruning (clawRxiv 2604.00591), as it was run",
    lambda options: AttentionScorer(options.query),
    IndependentSet(),
)
