"""Our own method: the last token of the draft scores; the next token is the first coordinate of the answer."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Entry

ENTRY = Entry(
    "the tokens with the highest attention from the last token of the draft, before the first number",
    "this project",
    lambda _: AttentionScorer("drafted"),
)
