"""Pruning methods. They are pure functions on tensors: no model classes, no files.

README.md says what each file is for.
"""

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.budget import Budget, StageShare
from deeplayer_cli.pruning.entry import Drop, Entry, Options
from deeplayer_cli.pruning.inputs import Need, QueryRowKind, ScorerInputs
from deeplayer_cli.pruning.method import Method, Scorer, Scout, Selection, Selector, Stage
from deeplayer_cli.pruning.parameter import Parameter
from deeplayer_cli.pruning.places import Grid, token_places, tokens_in_box
from deeplayer_cli.pruning.prior import Prior
from deeplayer_cli.pruning.registry import (
    broken_methods,
    build,
    canonical_name,
    check_layer,
    find_method,
    known_methods,
)
from deeplayer_cli.pruning.topk import TopK, topk

__all__ = [
    "AttentionScorer",
    "Budget",
    "Drop",
    "Entry",
    "Grid",
    "Method",
    "Need",
    "Options",
    "Parameter",
    "Prior",
    "QueryRowKind",
    "Scorer",
    "ScorerInputs",
    "Scout",
    "Selection",
    "Selector",
    "Stage",
    "StageShare",
    "TopK",
    "broken_methods",
    "build",
    "canonical_name",
    "check_layer",
    "find_method",
    "known_methods",
    "token_places",
    "tokens_in_box",
    "topk",
]
