"""Deep-Layer Attention Pruning (clawRxiv 2604.00591) with plain top-k: the highest attention in layer 12 of 32.

The last prompt token scores. The paper reports only `deep_layer_mis`, not plain top-k.
"""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Entry

ENTRY = Entry(
    "the tokens with the highest attention from the last prompt token",
    "Deep-Layer Attention Pruning, clawRxiv 2604.00591. Ours: plain top-k",
    lambda options: AttentionScorer(options.query),
    positions="keep",
)
