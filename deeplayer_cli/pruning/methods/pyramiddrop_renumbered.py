"""PyramidDrop (arXiv:2410.17247) as published: later layers renumber position ids after every drop."""

from __future__ import annotations

from deeplayer_cli.pruning.methods.pyramiddrop import DROPS
from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry(
    "as pyramiddrop, but later layers renumber position ids after every step",
    "PyramidDrop, arXiv:2410.17247, as published",
    drops=DROPS,
    renumbers=True,
)
