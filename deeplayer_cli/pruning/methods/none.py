"""The unpruned model."""

from __future__ import annotations

from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry("everything", "the unpruned model")
