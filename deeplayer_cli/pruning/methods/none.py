"""The unpruned model: no visual token is dropped."""

from __future__ import annotations

from deeplayer_cli.pruning.entry import Entry

ENTRY = Entry("all tokens", "the unpruned model")
