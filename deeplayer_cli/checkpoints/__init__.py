"""From a name or a folder to a model that is ready to run.

    names   locate.py: what ``--model`` may be
    layouts original.py, native.py, random_weights.py: each describes a checkpoint in the same words, a ``Layout``
    weights weights.py: one table of names per layout, checked whole and then streamed tensor by tensor

Nothing of a checkpoint is ever executed: its files are read as JSON, safetensors, vocabularies and sandboxed templates.
"""

from deeplayer_cli.checkpoints.checkpoint import Checkpoint, load, read_layout
from deeplayer_cli.checkpoints.identity import identify
from deeplayer_cli.checkpoints.layout import Layout
from deeplayer_cli.checkpoints.locate import DEFAULT

__all__ = ["DEFAULT", "Checkpoint", "Layout", "identify", "load", "read_layout"]
