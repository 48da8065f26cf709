"""PyramidDrop (arXiv:2410.17247): three drops of equal ratio, scored with the next layer's attention."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Drop, Entry

_DROPS = tuple(
    Drop(lambda options: AttentionScorer(options.query), of_32=layer, power=power, score_from="next_layer")
    for layer, power in ((8, 1 / 3), (16, 2 / 3), (24, 1.0))
)

ENTRY = Entry(
    "the tokens with the highest attention from the last prompt token in the next layer, in three steps",
    "PyramidDrop, arXiv:2410.17247",
    drops=_DROPS,
    positions="renumber",
)
