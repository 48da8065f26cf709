"""Checkpoints: from a name or a folder to a model that is ready to run.

locate.py                                  finds or downloads the folder that ``--model`` names
files.py                                   reads its files as untrusted input
original.py, native.py, random_weights.py  describe a checkpoint as a ``Layout`` (layout.py)
tokenizer.py                               gives the ids of the original tokenizer
fitting.py                                 does the model fit into free memory?
weights.py                                 checks all tensor names and shapes, then loads tensor by tensor
checkpoint.py                              all of it: a name to a loaded model
identity.py                                digests of weights
known_models.py, sizes.py                  models whose shapes are known without a download
doctor.py, versions.py                     can this machine run models?

No code of a checkpoint is ever executed. Its files are read as JSON, safetensors, vocabularies and sandboxed templates.
"""

from deeplayer_cli.checkpoints.checkpoint import Checkpoint, load, read_layout
from deeplayer_cli.checkpoints.identity import identify
from deeplayer_cli.checkpoints.layout import Layout
from deeplayer_cli.checkpoints.locate import DEFAULT, pending_download

__all__ = ["DEFAULT", "Checkpoint", "Layout", "identify", "load", "pending_download", "read_layout"]
