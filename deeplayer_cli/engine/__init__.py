"""Tensors and methods to answers; files and images are not known here.

types.py           what is handed from step to step, with shapes
engine.py          the steps: encode, prefix, prefill, decode
prefix.py          layers 1..K over what an image's expressions share
prefill.py         each expression's own tokens
selection.py       what a stage reads, and what it keeps
pruned_layers.py   layers K+1..L over what is kept
decode.py          greedy answers; drafting.py: guesses that save passes
language_model.py  the decoder's layers one at a time; decoder.py: one layer as pure functions; kv_cache.py
stopwatch.py       where the time goes
"""

from deeplayer_cli.engine.drafting import Draft
from deeplayer_cli.engine.engine import Engine
from deeplayer_cli.engine.pruned_layers import PrunedLayers, each_row, union_of_rows
from deeplayer_cli.engine.types import Answer, KeptTokens, Prefilled, Prefix, Row

__all__ = [
    "Answer",
    "Draft",
    "Engine",
    "KeptTokens",
    "Prefilled",
    "Prefix",
    "PrunedLayers",
    "Row",
    "each_row",
    "union_of_rows",
]
