"""The engine: it takes tensors and a pruning method, and returns answers. It reads no files and no images.

README.md says what each file is for.
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
