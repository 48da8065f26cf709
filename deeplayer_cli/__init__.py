"""Batch visual grounding with InternVL: image + referring expression -> box.

>>> from deeplayer_cli import Grounder, run
>>> grounder = Grounder.load("demo")
>>> rows = grounder.ground([{"image": "photo.jpg", "expression": "the red circle"}])
>>> outcome = run("requests.jsonl", grounder, "boxes.jsonl")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplayer_cli.runtime.grounder import Grounder
    from deeplayer_cli.runtime.run import run
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.sources import open_source

__version__ = "0.1.0"
__all__ = ["Grounder", "Settings", "open_source", "run"]

_HOMES = {
    "Grounder": "deeplayer_cli.runtime.grounder",
    "Settings": "deeplayer_cli.runtime.settings",
    "open_source": "deeplayer_cli.sources",
    "run": "deeplayer_cli.runtime.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``deeplayer --help`` does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
