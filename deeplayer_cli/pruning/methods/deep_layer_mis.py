"""Deep-Layer Attention Pruning (clawRxiv 2604.00591) as in the paper: with D2Pruner's pivots and independent set."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.independent_set import IndependentSet
from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry(
    "70% of the budget by the scores of deep-layer; the rest: tokens unlike these and unlike each other",
    "Deep-Layer Attention Pruning, clawRxiv 2604.00591. Ours: the spatial similarity",
    lambda options: AttentionScorer(options.query),
    IndependentSet(),
)
