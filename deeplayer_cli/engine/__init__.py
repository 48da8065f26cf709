"""The engine: it takes tensors and a pruning method, and returns answers. It reads no files and no images.

types.py           the data that each step hands to the next, with shapes
engine.py          the steps: encode, prefix, prefill, decode
prefix.py          layers 1..K over the tokens that all expressions about an image share
prefill.py         the suffix of each expression
scout.py           layers 1..K over P1 and suffixes, where they only score
suffixes.py        token ids and lengths of a batch, on the device
selection.py       what a stage reads, and which tokens it keeps; result_check.py: checks of what it returns
pruned_layers.py   layers K+1..L over the kept tokens
decode.py          greedy decoding; drafting.py: drafts that save passes
attention_rows.py  what some tokens attend to, in every layer
language_model.py  the decoder's layers one at a time; decoder.py: one layer as pure functions
kv_cache.py        keys and values; row_groups.py: which rows share them
compiler.py        torch.compile, where it works
stopwatch.py       time by phase
"""

from deeplayer_cli.engine.attention_rows import AttentionRows
from deeplayer_cli.engine.drafting import Draft
from deeplayer_cli.engine.engine import Engine
from deeplayer_cli.engine.pruned_layers import PrunedLayers, each_row, union_of_rows
from deeplayer_cli.engine.types import Answer, KeptTokens, Prefilled, Prefix, Row

__all__ = [
    "Answer",
    "AttentionRows",
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
