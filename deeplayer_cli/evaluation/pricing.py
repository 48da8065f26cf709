"""What the lines of a comparison cost at the shape of a large model: FLOPs, and measured time.

    python -m deeplayer_cli.evaluation.pricing outcomes-standard.json 3 > costs.json

for the lines of that file, in 3 rounds.

A line ran on a small model of few layers. Here its schedule is stretched to the depth of a larger one: with 8 and 32
layers, a drop after layer 6 is a drop after layer 24. FLOPs are computed at the shape of InternVL2.5-8B. Time is
measured on random weights of the same depth and an eighth of the width: CPU seconds of one thread, from pixels to the
first answer token, the least of the rounds. In a round every line has one turn.
"""

from __future__ import annotations

import sys
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

RAN, PRICED, TIMED = "demo", "random:8b", "random:mini"
"""The model that gave the answers, the model whose FLOPs are counted, and the model that is timed."""

TILES = 7
CIRCUMSTANCES = {"ran": RAN, "priced": PRICED, "timed": TIMED, "tiles": TILES}
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


def computed_costs(runs: Sequence[MethodRun]) -> list[LineCost]:
    """The cost of lines without their time."""
    layout = checkpoints.read_layout(PRICED)
    shape = ModelShape.from_config(layout.config)
    n_visual, n_layers = TILES * shape.tokens_per_tile, shape.text.layers
    prompt = PromptLengths.from_checkpoint(layout, n_visual, len(layout.tokenizer.encode_expression(_EXPRESSION)))
    vision, unpruned = vision_flops(shape, TILES), prefill_flops(shape, prompt, Method("none"))
    found = []
    for run, method in zip(runs, _methods(runs, n_layers), strict=True):
        language = prefill_flops(shape, prompt, method)
        shares = language / unpruned, (vision + language) / (vision + unpruned)
        found.append(LineCost(run.label, run.keep, run.layer, method.mean_keep(n_visual, n_layers), *shares))
    return found


def measured_seconds(runs: Sequence[MethodRun]) -> Iterator[list[float]]:
    """Time the lines in turn, round after round without end: CPU seconds of each."""
    torch.set_num_threads(1)
    checkpoint = checkpoints.load(TIMED, dtype="fp32", device="cpu")
    subject, draft = Subject(checkpoint, TILES), TemplateDraft.from_tokenizer(checkpoint.tokenizer)
    methods = _methods(runs, checkpoint.model.config.text_config.num_hidden_layers)
    while True:
        yield [cpu_seconds(subject, Engine(checkpoint, method, draft=draft)) for method in methods]


def _methods(runs: Sequence[MethodRun], n_layers: int) -> list[Method]:
    """The methods of lines, for a model of ``n_layers``."""
    layout = checkpoints.read_layout(RAN)
    factor, rest = divmod(n_layers, layout.config.text_config.num_hidden_layers)
    assert not rest  # noqa: S101 - by the choice of the models above
    return [stretched(method_of(run, layout), factor) for run in runs]


def cpu_seconds(subject: Subject, engine: Engine) -> float:
    """CPU seconds of an engine from pixels to the first answer token, for the first expression."""
    begun = process_time()
    engine.prefill(subject.prefix(engine), subject.rows, _N_NEW)
    return process_time() - begun


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.exit("usage: python -m deeplayer_cli.evaluation.pricing OUTCOMES ROUNDS")
    try:
        read = read_outcomes(Path(sys.argv[1]))
        rounds = list(islice(measured_seconds(read), int(sys.argv[2])))
        timed = [replace(cost, seconds=taken) for cost, *taken in zip(computed_costs(read), *rounds, strict=True)]
        sys.stdout.buffer.write(costs_json(timed, CIRCUMSTANCES | {"torch": torch.__version__}))
    except DeeplayerError as error:
        sys.exit(str(error))
