"""What the lines of a comparison cost at the shape of a large model: FLOPs, and measured time.

    python -m deeplayer_cli.evaluation.pricing outcomes-standard.json demo 3 > costs.json

for the lines of that file, which the model ``demo`` ran, in 3 rounds.

The schedule of a line is stretched to a depth of 32 layers: in a model of 8, a drop after layer 6 is a drop after layer
24. FLOPs are computed at the shape of InternVL2.5-8B. Time is measured on random weights of the same depth and an
eighth of the width: CPU seconds of one thread, from pixels to the first answer token. In a round every line has one
turn.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import torch

from deeplayer_cli import checkpoints
from deeplayer_cli.bench.subject import Subject
from deeplayer_cli.checkpoints.layout import tokens_per_tile
from deeplayer_cli.cost.flops import prefill_flops, vision_flops
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.engine import Engine
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.line_costs import LineCost, costs_json
from deeplayer_cli.evaluation.outcomes import read_outcomes
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.pruning import Budget, Method, Options, build, find_method
from deeplayer_cli.pruning.method import Scout
from deeplayer_cli.pruning.prior import Prior

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deeplayer_cli.checkpoints import Layout
    from deeplayer_cli.evaluation.compare import MethodRun
    from deeplayer_cli.pruning.method import Stage

PRICED, TIMED = "random:8b", "random:mini"
"""The model whose FLOPs are counted, and the model that is timed; both have 32 layers."""

TILES = 7
_EXPRESSION = "the small red circle"
_N_NEW = 40  # answer tokens that leave room for the whole draft


def method_of(run: MethodRun, layout: Layout) -> Method:
    """The method of a line, built for the model that ran it.

    Raises:
        DeeplayerError: the label names an option that changes more than the schedule.
    """
    name, _, layer = run.label.partition("@layer=")
    if layer and not layer.isdecimal():
        raise DeeplayerError(f"{run.label} has options beside its layer, so its cost is not known")
    prior = None
    if find_method(name)[0].is_calibrated and run.layer is not None:  # the values of a prior change no cost
        flat = torch.ones(tokens_per_tile(layout.config))
        prior = Prior(flat, flat, run.layer)
    options = Options(
        Budget(1.0 if run.keep is None else run.keep),
        layer=int(layer) if layer else None,
        grounding_layer=layout.grounding_layer,
        prior=prior,
    )
    return build(name, options, layout.config.text_config.num_hidden_layers)


def stretched(method: Method, factor: int) -> Method:
    """The schedule of a method for a model that is ``factor`` times as deep."""

    def deeper(stage: Stage) -> Stage:
        scout = stage.scout and Scout(factor * stage.scout.layer, factor * stage.scout.updates)
        return replace(stage, drop_after_layer=factor * stage.drop_after_layer, scout=scout)

    frozen = None if method.freeze_after_layer is None else factor * method.freeze_after_layer
    return replace(method, stages=tuple(map(deeper, method.stages)), freeze_after_layer=frozen)


def computed_costs(runs: Sequence[MethodRun], ran: Layout) -> list[LineCost]:
    """The cost of the lines of a model, without their time."""
    layout = checkpoints.read_layout(PRICED)
    shape = ModelShape.from_config(layout.config)
    n_visual, n_layers = TILES * shape.tokens_per_tile, shape.text.layers
    prompt = PromptLengths.from_checkpoint(layout, n_visual, len(layout.tokenizer.encode_expression(_EXPRESSION)))
    vision, unpruned = vision_flops(shape, TILES), prefill_flops(shape, prompt, Method("none"))
    found = []
    for run, method in zip(runs, _methods(runs, ran, n_layers), strict=True):
        language = prefill_flops(shape, prompt, method)
        shares = language / unpruned, (vision + language) / (vision + unpruned)
        found.append(LineCost(run.label, run.keep, run.layer, method.mean_keep(n_visual, n_layers), *shares))
    return found


def measured_seconds(runs: Sequence[MethodRun], ran: Layout) -> Iterator[list[float]]:
    """Time the lines in turn, round after round without end: CPU seconds of each."""
    torch.set_num_threads(1)
    checkpoint = checkpoints.load(TIMED, dtype="fp32", device="cpu")
    subject, draft = Subject(checkpoint, TILES), TemplateDraft.from_tokenizer(checkpoint.tokenizer)
    methods = _methods(runs, ran, checkpoint.model.config.text_config.num_hidden_layers)
    while True:
        yield [cpu_seconds(subject, Engine(checkpoint, method, draft=draft)) for method in methods]


def _methods(runs: Sequence[MethodRun], ran: Layout, n_layers: int) -> list[Method]:
    """The methods of lines, for a model of ``n_layers``.

    Raises:
        DeeplayerError: this number is no multiple of the layers of the model that ran the lines.
    """
    factor, rest = divmod(n_layers, own := ran.config.text_config.num_hidden_layers)
    if rest:
        raise DeeplayerError(f"a schedule of {own} layers cannot be stretched to {n_layers}: that is no multiple")
    return [stretched(method_of(run, ran), factor) for run in runs]


def cpu_seconds(subject: Subject, engine: Engine) -> float:
    """CPU seconds of an engine from pixels to the first answer token, for the first expression."""
    begun = process_time()
    engine.prefill(subject.prefix(engine), subject.rows, _N_NEW)
    return process_time() - begun


if __name__ == "__main__":
    parser = ArgumentParser(
        "python -m deeplayer_cli.evaluation.pricing", description="Print what the lines of a study cost, as JSON."
    )
    parser.add_argument("OUTCOMES", type=Path, help="outcomes-NAME.json")
    parser.add_argument("MODEL", help="that ran the lines, as --model of `compare`")
    parser.add_argument("ROUNDS", type=int, help="in which each line is timed once")
    given = parser.parse_args()
    if given.ROUNDS < 1:
        parser.error(f"ROUNDS must be at least 1, not {given.ROUNDS}")
    try:
        read, layout = read_outcomes(given.OUTCOMES), checkpoints.read_layout(given.MODEL)
        computed = computed_costs(read, layout)
        rounds = islice(measured_seconds(read, layout), given.ROUNDS)
        timed = [replace(cost, seconds=taken) for cost, *taken in zip(computed, *rounds, strict=True)]
        about = {"ran": given.MODEL, "priced": PRICED, "timed": TIMED, "tiles": TILES, "torch": torch.__version__}
        sys.stdout.buffer.write(costs_json(timed, about))
    except DeeplayerError as error:
        parser.exit(2, f"{error}\n")
