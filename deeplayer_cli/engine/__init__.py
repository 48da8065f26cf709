"""Tensors and methods to answers; files and images are somebody else's."""

from deeplayer_cli.engine.answer import Answer
from deeplayer_cli.engine.draft import Draft, TemplateDraft
from deeplayer_cli.engine.engine import Engine, Prefilled, Prefix, Row
from deeplayer_cli.engine.vision import Encoded

__all__ = ["Answer", "Draft", "Encoded", "Engine", "Prefilled", "Prefix", "Row", "TemplateDraft"]
