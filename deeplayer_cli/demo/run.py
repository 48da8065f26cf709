"""The state of a training run, and one training step."""

from __future__ import annotations

import pickle
import random
from dataclasses import asdict, replace
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch

from deeplayer_cli.demo import answers, dense, tokenizer
from deeplayer_cli.demo.answers import Form
from deeplayer_cli.demo.model import build
from deeplayer_cli.demo.optimise import Optimisers
from deeplayer_cli.demo.recipe import LESSONS, SIGMAS, TEXT_WEIGHT
from deeplayer_cli.demo.scenes import COMPACT, HARD, LONG, SIDE, STANDARD, TRAIN_SEEDS, pick, scene
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT
from deeplayer_cli.models.internvl.tiling import Tiling, tile_image
from deeplayer_cli.models.internvl.vision import encode
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import InternVLForConditionalGeneration

    from deeplayer_cli.demo.recipe import Recipe
    from deeplayer_cli.demo.scenes import Difficulty, Scene

CHECKPOINT = "checkpoint.pt"

TILING = Tiling(SIDE, max_tiles=2)
_ONE_TILE = Tiling(SIDE, max_tiles=1)
_SEEDS_PER_RUN = 100_000_000


class Run:
    """A training run: the model, its heads and optimisers, and the number of steps done.

    The constructor builds the initial model of the recipe and leaves torch's global random state unchanged.

    Args:
        recipe: settings of the run.
        folder: folder of the checkpoint and the log.

    Attributes:
        tokens: the demo's tokenizer.
        wording: encodes prompts and answers with ``tokens``.
        model: the demo model, in float32.
        heads: dense heads of the first phase.
        optimisers: one ``Optimisers`` per phase.
        step: steps done so far, of both phases.
        seconds: training time so far.
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
        """Number of steps of both phases together."""
        return self.recipe.vision_steps + self.recipe.steps

    @property
    def answered(self) -> int:
        """Number of answers trained on so far."""
        return max(0, self.step - self.recipe.vision_steps) * self.recipe.scenes * self.recipe.questions

    def advance(self) -> dict[str, float]:
        """Take one training step, and return its losses and metrics for the log.

        Raises:
            DeeplayerError: the recipe's seed is too large; no scenes remain for it.
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
        lesson = next(one for one in LESSONS if done < one.until * self.recipe.steps)
        rng = random.Random(f"{self.recipe.seed} {self.step}")
        frames = LONG if rng.random() < lesson.long else COMPACT  # all images of a batch have the same tile count
        batch = self._draw([replace(one, frames=frames) for one in lesson.difficulties])
        form = Form.OFFICIAL if rng.random() < lesson.official else Form.NUMBERS
        names = self.recipe.questions // lesson.named
        forms = (Form.NAME,) * names + (form,) * (self.recipe.questions - names)
        asked = answers.make_batch(self.wording, batch, forms, rng)
        with torch.no_grad():
            features = visual_tokens(self.model, batch, TILING)
        losses = answers.losses(self.model, self.wording, features, asked, SIGMAS[done >= 0.6 * self.recipe.steps])
        loss = losses.numbers + losses.names + losses.expressions + TEXT_WEIGHT * losses.text
        self.optimisers[1].step(loss, done)
        return {
            "expressions": losses.expressions.item(),
            "names": losses.names.item(),
            f"{form.name.lower()}": losses.numbers.item(),
            f"{form.name.lower()}_text": losses.text.item(),
        }

    def _draw(self, difficulties: Sequence[Difficulty]) -> list[Scene]:
        """Draw the step's scenes; they take the difficulties in turn."""
        first = self.recipe.seed * _SEEDS_PER_RUN + self.step * self.recipe.scenes
        seeds = pick(TRAIN_SEEDS, first, self.recipe.scenes)
        return [scene(seed, difficulty) for seed, difficulty in zip(seeds, cycle(difficulties))]

    def save(self) -> None:
        """Write the checkpoint, as a whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [optimisers.state_dict() for optimisers in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        with replacing(self.folder / CHECKPOINT) as partial:
            torch.save(state, partial)

    def load(self) -> None:
        """Restore the run from the checkpoint in its folder.

        Raises:
            DeeplayerError: the folder has no checkpoint, or the checkpoint has another recipe.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise DeeplayerError(f"{self.folder} has no {CHECKPOINT}: there is nothing to resume")
        try:
            state = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DeeplayerError(f"{path} is damaged: train from the start in another folder") from error
        if state["recipe"] != asdict(self.recipe):
            raise DeeplayerError(f"{path} has another recipe: resume with the options that the run started with")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimisers, one in zip(self.optimisers, state["optimisers"], strict=True):
            optimisers.load_state_dict(one)
        self.step, self.seconds = state["step"], state["seconds"]


def visual_tokens(model: InternVLForConditionalGeneration, scenes: Sequence[Scene], tiling: Tiling) -> torch.Tensor:
    """Encode the images of scenes into projected visual tokens, [scenes, tiles * 144, hidden].

    Args:
        model: its vision tower and projector are used.
        scenes: scenes whose images have the same number of tiles.
        tiling: how the images are cut into tiles.
    """
    return encode(model, torch.from_numpy(np.stack([tile_image(one.image, tiling) for one in scenes])))
