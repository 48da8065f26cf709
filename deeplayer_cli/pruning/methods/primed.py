"""Ours: the token before the first coordinate of the drafted answer scores."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.registry import Entry

ENTRY = Entry(
    "the tokens with the highest attention of the answer's draft, before its first number",
    "this project's own",
    lambda _: AttentionScorer("drafted"),
)
