"""Pruning methods by name: pure functions on tensors, no model classes, no files."""

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.base import Asker, Budget, Evidence, Method, QueryRows, Scorer, Selector, Stage
from deeplayer_cli.pruning.places import Grid, token_places
from deeplayer_cli.pruning.registry import Drop, Entry, Options, build, check_layer, methods, require_known
from deeplayer_cli.pruning.relative import Prior

__all__ = [
    "Asker",
    "AttentionScorer",
    "Budget",
    "Drop",
    "Entry",
    "Evidence",
    "Grid",
    "Method",
    "Options",
    "Prior",
    "QueryRows",
    "Scorer",
    "Selector",
    "Stage",
    "build",
    "check_layer",
    "methods",
    "require_known",
    "token_places",
]
