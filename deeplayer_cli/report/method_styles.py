"""How each pruning method looks in plots: the same in all of them."""

from __future__ import annotations

import hashlib
from itertools import product
from typing import NamedTuple

from deeplayer_cli.report.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION

_GREY = "#7F7F7F"


class MethodStyle(NamedTuple):
    """A colour and a marker of matplotlib."""

    colour: str
    marker: str


BASELINE = MethodStyle(BLACK, "none")
"""The style of ``none``, which is drawn as a line."""

_STYLES = {
    "deep-layer": MethodStyle(BLUE, "o"),
    "deep-layer-mis": MethodStyle(BLUE, "s"),
    "primed": MethodStyle(VERMILLION, "o"),
    "freeze": MethodStyle(VERMILLION, "s"),
    "cascade": MethodStyle(VERMILLION, "^"),
    "scout-focus": MethodStyle(VERMILLION, "v"),
    "fastv": MethodStyle(ORANGE, "o"),
    "d2pruner": MethodStyle(ORANGE, "s"),
    "pyramiddrop": MethodStyle(PURPLE, "o"),
    "sparsevlm-nomerge": MethodStyle(PURPLE, "s"),
    "feather": MethodStyle(PURPLE, "^"),
    "vscan": MethodStyle(PURPLE, "v"),
    "dart": MethodStyle(SKY_BLUE, "o"),
    "divprune": MethodStyle(GREEN, "o"),
    "visionzip-nomerge": MethodStyle(GREEN, "s"),
    "random": MethodStyle(_GREY, "o"),
    "uniform": MethodStyle(_GREY, "s"),
}
_FREE = [
    MethodStyle(colour, marker)
    for marker, colour in product("DXP*", (BLUE, VERMILLION, ORANGE, GREEN, PURPLE, SKY_BLUE, _GREY))
]


def style_of(method: str) -> MethodStyle:
    """Return the style of a method: of a table for those of this package, by a hash of the name for others."""
    if method == "none":
        return BASELINE
    number = int.from_bytes(hashlib.blake2b(method.encode(), digest_size=4).digest(), "little")
    return _STYLES.get(method) or _FREE[number % len(_FREE)]
