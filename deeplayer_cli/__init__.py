"""Batch visual grounding with InternVL: image + referring expression -> box.

>>> from deeplayer_cli import Grounder
>>> grounder = Grounder.load("demo")
>>> rows = grounder.ground([{"image": "photo.jpg", "expression": "the red circle"}])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplayer_cli.grounder import Grounder, Settings

__version__ = "0.1.0"
__all__ = ["Grounder", "Settings"]


def __getattr__(name: str) -> Any:
    """Import the library when it is first asked for: the command's ``--help`` should not wait for torch."""
    if name in __all__:
        from deeplayer_cli import grounder

        return getattr(grounder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
