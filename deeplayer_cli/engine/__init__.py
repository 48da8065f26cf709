"""Tensors and methods to answers; files and images are somebody else's."""

from deeplayer_cli.engine.answer import Answer
from deeplayer_cli.engine.draft import Draft, TemplateDraft
from deeplayer_cli.engine.engine import Engine, Prefilled, Prefix, Row

__all__ = ["Answer", "Draft", "Engine", "Prefilled", "Prefix", "Row", "TemplateDraft"]
