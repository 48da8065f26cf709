"""Tensors and methods to answers; files and images are somebody else's."""

from deeplayer_cli.engine.engine import Answer, Engine, Prefilled, Prefix, Row

__all__ = ["Answer", "Engine", "Prefilled", "Prefix", "Row"]
