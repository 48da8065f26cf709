"""Pruning methods. They are pure functions on tensors: no model classes, no files.

inputs.py, method.py    the contract: what a method reads, and what it consists of
entry.py, parameter.py  the declaration of a method, and what a user may set about it
declaration.py          finds what is wrong with a declaration
budget.py               how many tokens a method keeps, and each of its drops
registry.py             finds a method by its name and builds it
methods/NAME.py         one file for each method
attention.py, topk.py, independent_set.py, merging.py, prior.py, places.py   code that several methods share
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
