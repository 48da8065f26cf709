"""deeplayer as a model of lmms-eval, found by the entry-point group ``lmms_eval.models``; model.py: that model."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """Return what lmms-eval registers: its name for ``--model``, and the class that it loads when that is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("deeplayer", simple_class_path=f"{__name__}.model.LmmsGrounder")
