"""Our own method: later layers no longer update the visual tokens, but every layer still sees them."""

from __future__ import annotations

from deeplayer_cli.pruning.entry import Entry

ENTRY = Entry(
    "all tokens; later layers do not update their hidden states, and only project their keys and values",
    "this project",
    freeze_of_32=12,
)
