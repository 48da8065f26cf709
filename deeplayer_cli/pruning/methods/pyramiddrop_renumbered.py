"""PyramidDrop as published: position ids are counted anew after every drop."""

from __future__ import annotations

from deeplayer_cli.pruning.methods.pyramiddrop import DROPS
from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry(
    "the same; position ids of later layers are counted anew",
    "PyramidDrop (arXiv:2410.17247), as published: it shows what renumbering costs",
    drops=DROPS,
    renumbers=True,
)
