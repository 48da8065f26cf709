"""Pruning methods by name: pure functions on tensors, no model classes, no files."""

from deeplayer_cli.pruning.base import Budget, Evidence, Method, QueryRows, Scorer, Selector, Stage
from deeplayer_cli.pruning.places import Grid, token_places
from deeplayer_cli.pruning.registry import Entry, Options, build, methods, require_known

__all__ = [
    "Budget",
    "Entry",
    "Evidence",
    "Grid",
    "Method",
    "Options",
    "QueryRows",
    "Scorer",
    "Selector",
    "Stage",
    "build",
    "methods",
    "require_known",
    "token_places",
]
