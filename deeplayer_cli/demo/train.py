"""Training of the demo model by a recipe, with a log, checkpoints and measurements of accuracy.

See ``recipe`` for the phases and lessons. The result depends on the recipe only. A run can be stopped at any time, and
resuming from its last checkpoint gives bit-identical results.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson
import torch
from tqdm import tqdm

from deeplayer_cli.boxes import box_iou, from_permille
from deeplayer_cli.demo import answers, tokenizer
from deeplayer_cli.demo.answers import Form
from deeplayer_cli.demo.recipe import Recipe
from deeplayer_cli.demo.run import CHECKPOINT, TILING, Run, visual_tokens
from deeplayer_cli.demo.scenes import CURVE_SEEDS, pick, scene
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.demo.expressions import Referral
    from deeplayer_cli.demo.scenes import Scene

__all__ = ["LOG", "Recipe", "judge", "train"]

LOG = "log.jsonl"

_LOG_EVERY = 25  # steps
_SAVE_EVERY = 300.0  # seconds
_JUDGED_QUESTIONS = 6  # per scene


def train(folder: Path, recipe: Recipe, *, resume: bool = False) -> Run:
    """Train from the start, or from the folder's checkpoint, to the end of the recipe.

    Args:
        folder: receives ``checkpoint.pt`` and ``log.jsonl``; created if missing.
        recipe: settings of the run.
        resume: continue the run in the folder.

    Returns:
        The finished run.

    Raises:
        DeeplayerError: ``resume`` is set but the folder has no checkpoint, or one of another recipe; or ``resume`` is
            not set but the folder has a checkpoint; or the recipe's seed is too large.
    """
    run = Run(recipe, folder)
    if resume:
        run.load()
    elif (folder / CHECKPOINT).exists():
        raise DeeplayerError(f"{folder} already holds a run: continue it with --resume")
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
    """Treat subnormal numbers as zero: they do not matter in training, and CPUs compute slowly with them."""
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
    """Measure Acc@0.5 on unseen scenes, for the training curve.

    The model chooses the four numbers greedily. All other tokens of the answer are given.

    Args:
        run: the run whose model is measured.
        count: number of scenes, from the pool of the training curve.
        form: form of the questions, ``OFFICIAL`` or ``NUMBERS``.

    Returns:
        The share of questions whose box has an IoU of at least 0.5, from 0 to 1.
    """
    scenes = [scene(seed) for seed in pick(CURVE_SEEDS, 0, count)]
    right = [hit for one in scenes for hit in _judge_scene(run, one, form)]
    return sum(right) / len(right)


def _judge_scene(run: Run, one: Scene, form: Form) -> list[bool]:
    """Return, for each of the scene's first questions, whether the answered box has an IoU of at least 0.5."""
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
    """Return the token ids of a question and of its answer up to the first number."""
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
    """Remove the log lines after step ``step``, that of the checkpoint: training repeats the steps after it."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        with replacing(path) as partial:
            partial.write_bytes(b"".join(line for line in lines if orjson.loads(line)["step"] <= step))
