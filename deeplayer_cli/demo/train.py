"""The training recipe: vision first, then questions and answers.

In the first phase the vision tower and the projector learn from dense heads alone (``dense``). In the second they stand
still, and the language model learns to foresee the next token, in lessons: first about few objects told by attributes,
then about more, then places and relations, then everything. It foresees answers, and the expressions' own words:
having read "the green", it has to look up what is green. And it is asked for names as well as boxes: a name can be half
right, and gets better by each look at the right place, whereas a number is worth nothing before one object is read.
A run is a function of its recipe: it can be stopped at any time and goes on bit for bit from its last checkpoint.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import torch
from tqdm import tqdm

from deeplayer_cli.boxes import box_iou, from_permille
from deeplayer_cli.demo import answers, dense, tokenizer
from deeplayer_cli.demo.answers import Form
from deeplayer_cli.demo.model import DemoSize, build
from deeplayer_cli.demo.optimise import Optimisers
from deeplayer_cli.demo.scenes import (
    COMPACT,
    CURVE_SEEDS,
    HARD,
    LONG,
    SIDE,
    STANDARD,
    TRAIN_SEEDS,
    Difficulty,
    pick,
    scene,
)
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT
from deeplayer_cli.models.internvl.tiling import Tiling, tile_image
from deeplayer_cli.models.internvl.vision import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from transformers import InternVLForConditionalGeneration

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.demo.expressions import Referral
    from deeplayer_cli.demo.scenes import Scene

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"

TILING = Tiling(SIDE, max_tiles=2)
_ONE_TILE = Tiling(SIDE, max_tiles=1)


@dataclass(frozen=True)
class Lesson:
    """What is asked in a part of the second phase.

    Attributes:
        until: where it ends, as a share of the phase.
        difficulties: of a batch's scenes, in turn.
        named: one question of so many asks for a name.
        official: share of the batches whose boxes are asked for in the official form.
        long: share of the batches of two tiles and a thumbnail.
    """

    until: float
    difficulties: tuple[Difficulty, ...]
    named: int
    official: float = 0.0
    long: float = 0.0


_PLAIN = Difficulty(synonyms=False)
_LESSONS = (
    Lesson(0.06, (replace(_PLAIN, objects=(2, 4), kinds=("attribute",), alike=0.0),), named=2),
    Lesson(0.12, (replace(_PLAIN, kinds=("attribute",)),), named=2),
    Lesson(0.40, (_PLAIN,), named=4, official=0.4),
    Lesson(1.00, (STANDARD, STANDARD, STANDARD, HARD), named=4, official=0.4, long=0.2),
)
_SIGMAS = (8.0, 4.0)  # spread of the number targets, before and after 60% of the second phase
_TEXT_WEIGHT = 0.5  # of the echo and the brackets, against all else
_SEEDS_PER_RUN = 100_000_000
_LOG_EVERY = 25  # steps
_SAVE_EVERY = 300.0  # seconds
_JUDGED_QUESTIONS = 6  # per scene


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on.

    Attributes:
        vision_steps: length of the first phase.
        steps: length of the second phase.
        scenes: per step.
        questions: per scene.
        judge_every: steps of the second phase between two measurements of accuracy; 0 for none.
        judge_scenes: scenes in such a measurement.
        size: of the model.
        seed: of the first weights and of every draw.
    """

    vision_steps: int = 3000
    steps: int = 4000
    scenes: int = 8
    questions: int = 12
    judge_every: int = 500
    judge_scenes: int = 32
    size: DemoSize = field(default_factory=DemoSize)
    seed: int = 0


class Run:
    """A model in training.

    Args:
        recipe: of the run.
        folder: of its checkpoint and log.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.tokens = tokenizer.build()
        self.wording = answers.Wording(self.tokens)
        image_token, end_token = self.tokens.convert_tokens_to_ids([IMAGE_CONTEXT, tokenizer.END])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = build(recipe.size, len(self.tokens), image_token, end_token)
            self.heads = dense.Heads(recipe.size.hidden, self.tokens)
        heads = [(f"head.{name}", parameter) for name, parameter in self.heads.named_parameters()]
        named = list(self.model.named_parameters())
        sight = [(name, p) for name, p in named if "vision_tower" in name or "projector" in name]
        language = [(name, p) for name, p in named if "language_model" in name or "lm_head" in name]
        self.optimisers = (
            Optimisers([*sight, *heads], recipe.vision_steps, muon_rate=0.02, constant_until=0.25),
            Optimisers(language, recipe.steps, muon_rate=0.01, constant_until=0.1),
        )
        self.step = 0
        self.seconds = 0.0

    @property
    def total(self) -> int:
        """Steps of both phases."""
        return self.recipe.vision_steps + self.recipe.steps

    @property
    def answered(self) -> int:
        """Answers trained on so far."""
        return max(0, self.step - self.recipe.vision_steps) * self.recipe.scenes * self.recipe.questions

    def advance(self) -> dict[str, float]:
        """One step; returns what the log tells of it.

        Raises:
            DeeplayerError: this seed has no scenes of its own.
        """
        answered = self.step - self.recipe.vision_steps
        told = self._see() if answered < 0 else self._answer(answered)
        self.step += 1
        return told

    def _see(self) -> dict[str, float]:
        batch = self._draw((STANDARD, HARD))
        loss, told = self.heads.loss(self.model, visual_tokens(self.model, batch, _ONE_TILE), batch)
        self.optimisers[0].step(loss, self.step)
        return told

    def _answer(self, done: int) -> dict[str, float]:
        lesson = next(one for one in _LESSONS if done < one.until * self.recipe.steps)
        rng = random.Random(f"{self.recipe.seed} {self.step}")
        frames = LONG if rng.random() < lesson.long else COMPACT  # a batch is of equal tile counts
        batch = self._draw([replace(one, frames=frames) for one in lesson.difficulties])
        form = Form.OFFICIAL if rng.random() < lesson.official else Form.NUMBERS
        names = self.recipe.questions // lesson.named
        forms = (Form.NAME,) * names + (form,) * (self.recipe.questions - names)
        asked = answers.make_batch(self.wording, batch, forms, rng)
        with torch.no_grad():
            features = visual_tokens(self.model, batch, TILING)
        losses = answers.losses(self.model, self.wording, features, asked, _SIGMAS[done >= 0.6 * self.recipe.steps])
        loss = losses.numbers + losses.names + losses.expressions + _TEXT_WEIGHT * losses.text
        self.optimisers[1].step(loss, done)
        return {
            "expressions": losses.expressions.item(),
            "names": losses.names.item(),
            f"{form.name.lower()}": losses.numbers.item(),
            f"{form.name.lower()}_text": losses.text.item(),
        }

    def _draw(self, difficulties: Sequence[Difficulty]) -> list[Scene]:
        """The step's scenes, in turn of each difficulty."""
        first = self.recipe.seed * _SEEDS_PER_RUN + self.step * self.recipe.scenes
        seeds = pick(TRAIN_SEEDS, first, self.recipe.scenes)
        return [scene(seed, difficulty) for seed, difficulty in zip(seeds, cycle(difficulties))]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [optimisers.state_dict() for optimisers in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.folder / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self.folder / CHECKPOINT)

    def load(self) -> None:
        """Go on from the checkpoint in the folder.

        Raises:
            DeeplayerError: there is none, or it is of another recipe.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise DeeplayerError(f"{self.folder} holds no {CHECKPOINT}: there is nothing to resume")
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise DeeplayerError(f"{path} is of another recipe: resume with the options that the run was begun with")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimisers, one in zip(self.optimisers, state["optimisers"], strict=True):
            optimisers.load_state_dict(one)
        self.step, self.seconds = state["step"], state["seconds"]


def visual_tokens(model: InternVLForConditionalGeneration, scenes: Sequence[Scene], tiling: Tiling) -> torch.Tensor:
    """Projected visual tokens of scenes of equal tile counts, [scenes, tiles * 144, hidden]."""
    return encode(model, torch.from_numpy(np.stack([tile_image(one.image, tiling) for one in scenes])))


def train(folder: Path, recipe: Recipe, *, resume: bool = False) -> Run:
    """Train from the start, or from the folder's checkpoint, to the end of the recipe.

    Args:
        folder: gets ``checkpoint.pt`` and ``log.jsonl``.
        recipe: of the run.
        resume: continue the run in the folder.

    Raises:
        DeeplayerError: a run is in the folder and ``resume`` was not asked for, or the other way round.
    """
    run = Run(recipe, folder)
    if resume:
        run.load()
    elif (folder / CHECKPOINT).exists():
        raise DeeplayerError(f"{folder} holds a run already: continue it with --resume")
    folder.mkdir(parents=True, exist_ok=True)
    _drop_lines_after(folder / LOG, run.step)
    with _without_subnormals():
        _advance_to_the_end(run)
    run.save()
    return run


def _advance_to_the_end(run: Run) -> None:
    begun, saved = time.monotonic() - run.seconds, time.monotonic()
    for _ in tqdm(range(run.step, run.total), initial=run.step, total=run.total, disable=None):
        told = run.advance()
        judged = _judgement(run)
        run.seconds = time.monotonic() - begun
        if judged or run.step % _LOG_EVERY == 0 or run.step == run.total:
            line = {"step": run.step, "minutes": run.seconds / 60, "answers": run.answered} | told | judged
            _log(run.folder / LOG, line)
        if time.monotonic() - saved > _SAVE_EVERY:
            run.save()
            saved = time.monotonic()


@contextmanager
def _without_subnormals() -> Iterator[None]:
    """Numbers too small to be normal count as zero: they mean nothing in training, and CPUs are slow with them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _judgement(run: Run) -> dict[str, float]:
    done, every = run.step - run.recipe.vision_steps, run.recipe.judge_every
    if done <= 0 or not every or (done % every and run.step != run.total):
        return {}
    return {
        "acc@0.5": judge(run, run.recipe.judge_scenes, Form.OFFICIAL),
        "acc@0.5_numbers_only": judge(run, run.recipe.judge_scenes, Form.NUMBERS),
    }


@torch.no_grad()
def judge(run: Run, count: int, form: Form) -> float:
    """Acc@0.5 on ``count`` unseen scenes, for the curve: the answer's text is given, the numbers are the model's."""
    scenes = [scene(seed) for seed in pick(CURVE_SEEDS, 0, count)]
    right = [hit for one in scenes for hit in _judge_scene(run, one, form)]
    return sum(right) / len(right)


def _judge_scene(run: Run, one: Scene, form: Form) -> list[bool]:
    """Whether each of the scene's first questions is answered by a box of IoU 0.5 or more."""
    referrals = one.referrals[:_JUDGED_QUESTIONS]
    rows = [_until_numbers(run.wording, referral, form, one.image.size) for referral in referrals]
    comma = run.wording.ids(", ")
    features = visual_tokens(run.model, [one], TILING)
    boxes: list[list[int]] = [[] for _ in rows]
    for _ in range(4):
        lengths = torch.tensor([[len(row) for row in rows]])
        logits = answers.answer_logits(
            run.model, run.wording, features, torch.tensor(list(chain.from_iterable(rows))), lengths
        )
        for row, box, scores in zip(rows, boxes, logits[lengths[0].cumsum(0) - 1], strict=True):
            box.append(int(scores[: tokenizer.NUMBERS].argmax()))
            row += [box[-1], *comma]
    return [
        box_iou(from_permille(box, one.image.size), referral.box) >= 0.5
        for box, referral in zip(boxes, referrals, strict=True)
    ]


def _until_numbers(wording: answers.Wording, referral: Referral, form: Form, resolution: Resolution) -> list[int]:
    """The question and the answer up to its first number."""
    answer = wording.answer(referral, form, resolution)
    first = next(index for index, token in enumerate(answer) if token < tokenizer.NUMBERS)
    return wording.question(referral.expression, form) + answer[:first]


def _log(path: Path, line: dict[str, float]) -> None:
    rounded: dict[str, Any] = {
        key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()
    }
    with path.open("ab") as log:
        log.write(orjson.dumps(rounded, option=orjson.OPT_APPEND_NEWLINE))


def _drop_lines_after(path: Path, step: int) -> None:
    """Forget what was logged after the checkpoint: those steps are about to be taken again."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if orjson.loads(line)["step"] <= step))
