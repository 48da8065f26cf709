"""FastV (arXiv:2403.06764): the highest attention from the last prompt token in layer 2."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Entry

ENTRY = Entry(
    "the tokens with the highest attention from the last prompt token",
    "FastV, arXiv:2403.06764",
    lambda options: AttentionScorer(options.query),
    layer=2,
    positions="keep",
)
