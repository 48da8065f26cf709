from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import orjson
import pytest
import torch
from transformers import AutoTokenizer, InternVLForConditionalGeneration
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.checkpoints import load
from deeplayer_cli.commands import demo
from deeplayer_cli.demo import scenes
from deeplayer_cli.demo.answers import Form
from deeplayer_cli.demo.export import export
from deeplayer_cli.demo.recipe import Recipe
from deeplayer_cli.demo.run import TILING, Run
from tests.demo.test_training import TINY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(TINY, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export(run.model, run.tokens, folder)
    return folder


def test_weights_are_the_trained_ones_in_bfloat16(run: Run, folder: Path) -> None:
    loaded = load(str(folder), dtype="float32", device="cpu").model
    theirs = InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert theirs.generation_config.eos_token_id == run.tokens.eos_token_id
    for trained, *others in zip(run.model.parameters(), loaded.parameters(), theirs.parameters(), strict=True):
        assert trained.dtype == torch.float32
        assert all(torch.equal(trained.bfloat16().float(), other.to_dense()) for other in others)


def test_whoever_reads_the_configuration_reads_the_weights(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_the_loaders_prompts_are_those_trained_on(run: Run, folder: Path) -> None:
    checkpoint, wording = load(str(folder), device="cpu"), run.wording
    tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
    assert tokenizer.encode(prompt.before_image) == wording.before_image
    assert tokenizer.encode_piece(prompt.after_image) == wording.after_image
    after = tokenizer.encode_piece(prompt.after_expression)
    for seed in range(20):
        for referral in scenes.scene(seed).referrals:
            asked = tokenizer.encode_expression(referral.expression) + after
            assert asked == wording.question(referral.expression, Form.OFFICIAL)


def test_the_tiling_trained_on_and_the_right_end(run: Run, folder: Path) -> None:
    checkpoint = load(str(folder), device="cpu")
    assert checkpoint.tiling == TILING
    assert checkpoint.eos_id == run.tokens.eos_token_id
    assert checkpoint.image_token_id == run.tokens.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert checkpoint.tokens_per_tile == 144


def test_it_says_where_it_looks(folder: Path) -> None:
    assert load(str(folder), device="cpu").grounding_layer == 1  # of two: tokens cannot be dropped after the last


def test_it_says_what_it_knows(folder: Path) -> None:
    for checkpoint in (load(str(folder), device="cpu"), load("demo", device="cpu")):
        assert checkpoint.scope is not None and checkpoint.scope.knows == "scenes of coloured shapes"
        assert set(checkpoint.scope.image_sizes) == set(scenes.STANDARD.frames) | set(scenes.HARD.frames)


def test_transformers_reads_the_tokenizer(run: Run, folder: Path) -> None:
    tokens = AutoTokenizer.from_pretrained(folder)
    text = "<ref>the red star</ref><box>[[1, 20, 300, 1000]]</box><|im_end|>"
    assert tokens(text)["input_ids"] == run.tokens(text)["input_ids"]
    assert tokens.chat_template == run.tokens.chat_template


def test_the_commands_defaults_are_the_recipe() -> None:
    given = inspect.signature(demo.train).parameters
    assert all(given[name].default == getattr(Recipe(), name) for name in ("vision_steps", "steps", "seed"))


def test_training_and_evaluating_from_the_command_line(tmp_path: Path) -> None:
    trained = CliRunner().invoke(app, ["demo", "train", "-o", str(tmp_path), "--vision-steps", "0", "--steps", "0"])
    assert trained.exit_code == 0, trained.output
    model = str(tmp_path / "model")
    evaluated = CliRunner().invoke(app, ["demo", "evaluate", "--count", "2", "--model", model, "--json"])
    assert evaluated.exit_code == 0, evaluated.output
    report = orjson.loads(evaluated.stdout)
    assert report["by"] == "kind"
    assert report["n_images"] == 2
    assert report["n"] == sum(group["n"] for group in report["groups"].values())
