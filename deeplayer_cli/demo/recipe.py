"""The training recipe of the demo model: its sizes, its seed and its lessons.

Training has two phases. In the first phase, the vision tower and the projector learn from dense heads alone (see
``dense``). In the second phase, they are frozen, and the language model learns next-token prediction in lessons. The
scenes of the lessons become harder: a few objects described by attributes, then more objects, then also places and
relations, then everything.

The second phase trains on the answers and on the words of the expressions. To predict the word after "the green", the
model has to find what is green in the image. Some questions have a name as answer instead of a box, because a name can
be partly right: every improvement in attention lowers its loss. The four numbers of a box become predictable only
when the model attends to a single object.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from deeplayer_cli.demo.model import DemoSize
from deeplayer_cli.demo.scenes import HARD, STANDARD, Difficulty


@dataclass(frozen=True)
class Lesson:
    """The scenes and questions of one part of the second phase.

    Attributes:
        until: end of the lesson, as a share of the phase's steps.
        difficulties: difficulties of a batch's scenes; the scenes take them in turn.
        named: one of this many questions has the form ``NAME``.
        official: share of the batches whose other questions have the form ``OFFICIAL`` instead of ``NUMBERS``.
        long: share of the batches whose images are two tiles and a thumbnail; the other images are one tile.
    """

    until: float
    difficulties: tuple[Difficulty, ...]
    named: int
    official: float = 0.0
    long: float = 0.0


_PLAIN = Difficulty(synonyms=False)
LESSONS = (
    Lesson(0.06, (replace(_PLAIN, objects=(2, 4), kinds=("attribute",), alike=0.0),), named=2),
    Lesson(0.12, (replace(_PLAIN, kinds=("attribute",)),), named=2),
    Lesson(0.40, (_PLAIN,), named=4, official=0.4),
    Lesson(1.00, (STANDARD, STANDARD, STANDARD, HARD), named=4, official=0.4, long=0.2),
)
SIGMAS = (8.0, 4.0)
"""Standard deviation of the number targets, in thousandths of the image: in the first 60% of the second phase, and
after it."""
TEXT_WEIGHT = 0.5
"""Weight of the loss on the other answer tokens (the repeated expression, the brackets, the commas and the end)."""


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the result of a training run.

    Attributes:
        vision_steps: steps of the first phase.
        steps: steps of the second phase.
        scenes: scenes per step.
        questions: questions per scene, in the second phase.
        judge_every: steps of the second phase between two measurements of accuracy; 0 for none.
        judge_scenes: scenes per measurement of accuracy.
        size: dimensions of the model.
        seed: seed of the initial weights and of all random choices.
    """

    vision_steps: int = 3000
    steps: int = 4000
    scenes: int = 8
    questions: int = 12
    judge_every: int = 500
    judge_scenes: int = 32
    size: DemoSize = field(default_factory=DemoSize)
    seed: int = 0
