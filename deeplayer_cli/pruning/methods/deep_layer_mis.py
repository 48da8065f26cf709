"""Deep-Layer Attention Pruning (clawRxiv 2604.00591) as in the paper: with D2Pruner's pivots and independent set."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Entry
from deeplayer_cli.pruning.independent_set import PARAMETERS, from_options

ENTRY = Entry(
    "70% of the budget by the scores of deep-layer; the rest: tokens unlike these and unlike each other",
    "Deep-Layer Attention Pruning, clawRxiv 2604.00591. Ours: the spatial similarity, pivots that set aside",
    lambda options: AttentionScorer(options.query),
    from_options,
    positions="keep",
    parameters=PARAMETERS,
)
