"""Our own method: half of the tokens before layer 1, whatever is asked; then the choice of the draft."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.entry import Drop, Entry
from deeplayer_cli.pruning.methods.divprune import MaxMin, NoScore
from deeplayer_cli.pruning.methods.uniform import UniformScorer
from deeplayer_cli.pruning.parameter import Parameter
from deeplayer_cli.pruning.topk import TopK

if TYPE_CHECKING:
    from deeplayer_cli.pruning.entry import Options
    from deeplayer_cli.pruning.method import Scorer, Selector


def _first_scorer(options: Options) -> Scorer:
    return UniformScorer() if options.parameters["first"] == "grid" else NoScore()


def _first_selector(options: Options) -> Selector:
    return TopK() if options.parameters["first"] == "grid" else MaxMin()


ENTRY = Entry(
    "a regular grid of half of the tokens; then, of these, the highest attention from the last token of the draft",
    "this project",
    drops=(
        Drop(_first_scorer, _first_selector, layer=0, share=0.5),
        Drop(lambda _: AttentionScorer("drafted"), of_32=20),
    ),
    parameters={"first": Parameter("grid", "which half comes first", choices=("grid", "divprune"))},
)
