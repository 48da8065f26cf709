"""Deep-Layer Attention Pruning (clawRxiv 2604.00591): the highest attention in layer 12 of 32.

The last prompt token scores. The paper ran `deep_layer_mis`; plain top-k is not in it.
"""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry(
    "the tokens with the highest attention in layer 12 of 32",
    "Deep-Layer Attention Pruning (clawRxiv 2604.00591)",
    lambda options: AttentionScorer(options.query),
)
