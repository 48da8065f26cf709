"""Our own method: a cheap scout over frozen visual tokens chooses the few that then run through the whole model."""

from __future__ import annotations

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Drop, Entry, Options
from deeplayer_cli.pruning.parameter import Parameter


def _updates(options: Options) -> int:
    return int(options.parameters["updates"])


ENTRY = Entry(
    "the tokens with the highest attention from the last token of the draft, in a pass that updates no visual token",
    "this project",
    drops=(Drop(lambda _: AttentionScorer("drafted"), of_32=20, scout=_updates),),
    keep=0.15,
    parameters={"updates": Parameter(0, "the scout's layers that update visual tokens, from layer 1 on", low=0)},
)
