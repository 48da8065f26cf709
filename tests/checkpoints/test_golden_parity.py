"""The loaded model, run by transformers' own forward, against the outputs of OpenGVLab's original code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from deeplayer_cli.checkpoints import Checkpoint, load
from tests.checkpoints.golden import Golden

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@pytest.fixture(scope="module")
def golden(reference_dir: Path) -> Golden:
    return Golden.read(reference_dir)


@pytest.fixture(scope="module")
def eager(reference_dir: Path) -> Checkpoint:
    return load(str(reference_dir / "checkpoint"), dtype="float32", device="cpu", attention="eager")


def assert_close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@torch.inference_mode()
def test_vision(golden: Golden, golden_checkpoint: Checkpoint) -> None:
    model = golden_checkpoint.model
    for key in golden.samples:
        pixels = golden[f"{key}.pixel_values"]
        assert_close(model.model.vision_tower(pixels).last_hidden_state, golden[f"{key}.vit_last_hidden"], 1e-5)
        assert_close(model.get_image_features(pixels).pooler_output, golden[f"{key}.vit_embeds"], 1e-5)


@torch.inference_mode()
def test_logits_and_attention(golden: Golden, eager: Checkpoint) -> None:
    for key in golden.samples:
        output = eager.model(
            input_ids=golden[f"{key}.input_ids"][None],
            pixel_values=golden[f"{key}.pixel_values"],
            output_attentions=True,
            output_hidden_states=True,
        )
        last_rows = torch.stack([layer[0, :, -1] for layer in output.attentions])
        assert_close(output.logits[0, -8:], golden[f"{key}.logits_last8"], 1e-4)
        assert_close(last_rows, golden[f"{key}.attn_last_row_all_layers"], 1e-5)
        assert output.logits[0].argmax(-1).tolist() == golden[f"{key}.logits_argmax"].tolist()
        if f"{key}.logits_full" in golden.arrays:
            assert_close(output.logits[0], golden[f"{key}.logits_full"], 1e-4)


@torch.inference_mode()
def test_sdpa_logits(golden: Golden, golden_checkpoint: Checkpoint) -> None:
    for key in golden.samples:
        pixels, ids = golden[f"{key}.pixel_values"], golden[f"{key}.input_ids"][None]
        logits = golden_checkpoint.model(input_ids=ids, pixel_values=pixels).logits
        assert_close(logits[0, -8:], golden[f"{key}.logits_last8"], 1e-4)


def generate(checkpoint: Checkpoint, golden: Golden, ids: Tensor, mask: Tensor, pixels: Tensor) -> list[list[int]]:
    options = dict(golden.facts["samples"][0]["generate_kwargs"])
    del options["temperature"]  # of no meaning without sampling
    output = checkpoint.model.generate(
        input_ids=ids, attention_mask=mask, pixel_values=pixels, pad_token_id=2, **options
    )
    return output[:, ids.shape[1] :].tolist()


def test_greedy(golden: Golden, golden_checkpoint: Checkpoint) -> None:
    assert golden_checkpoint.eos_id == golden.facts["samples"][0]["generate_kwargs"]["eos_token_id"]
    for key in golden.samples:
        ids = golden[f"{key}.input_ids"][None]
        generated = generate(golden_checkpoint, golden, ids, torch.ones_like(ids), golden[f"{key}.pixel_values"])
        assert generated == [golden[f"{key}.generated_ids"].tolist()]


def test_greedy_in_left_padded_batches(golden: Golden, golden_checkpoint: Checkpoint) -> None:
    for batch in golden.facts["batches"]:
        ids, mask = golden[f"{batch['key']}.input_ids"], golden[f"{batch['key']}.attention_mask"]
        generated = generate(golden_checkpoint, golden, ids, mask, golden.pixels(batch["samples"]))
        assert generated == golden[f"{batch['key']}.generated_ids"].tolist()


def test_greedy_with_an_early_stop(golden: Golden, reference_dir: Path) -> None:
    checkpoint = load(str(reference_dir / "checkpoint"), dtype="float32", device="cpu")
    recipe = golden.facts["eos_batch"]
    head = checkpoint.model.lm_head.weight.to_dense()
    head[recipe["dst"]] = recipe["scale"] * head[recipe["src"]]
    checkpoint.model.lm_head.forward = lambda hidden: hidden @ head.T
    ids, mask = golden["batch0.input_ids"], golden["batch0.attention_mask"]
    generated = generate(checkpoint, golden, ids, mask, golden.pixels(recipe["samples"]))
    assert generated == golden["eosbatch.generated_ids"].tolist()


def test_prompts_and_answers(golden: Golden, golden_checkpoint: Checkpoint) -> None:
    tokenizer, prompt = golden_checkpoint.tokenizer, golden_checkpoint.prompt
    assert {token: tokenizer.token_id(token) for token in golden.facts["token_ids"]} == golden.facts["token_ids"]
    for sample in golden.facts["samples"]:
        ids = [
            *tokenizer.encode(prompt.before_image),
            *[golden_checkpoint.image_token_id] * (golden_checkpoint.tokens_per_tile * sample["tiles"]),
            *tokenizer.encode_piece(prompt.after_image),
            *tokenizer.encode_expression(sample["expression"]),
            *tokenizer.encode_piece(prompt.after_expression),
        ]
        assert ids == golden[f"{sample['key']}.input_ids"].tolist()
        assert tokenizer.decode(sample["generated_ids"]).strip() == sample["response_text"]


def test_tiling_is_the_official_evaluations(golden: Golden, golden_checkpoint: Checkpoint) -> None:
    tiling = golden_checkpoint.tiling
    assert (tiling.tile_size, tiling.min_tiles, tiling.max_tiles, tiling.thumbnail) == (
        golden.facts["image_size"],
        1,
        golden.facts["max_num"],
        True,
    )


def test_ready_to_run(golden_checkpoint: Checkpoint) -> None:
    model = golden_checkpoint.model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]} == {"cpu"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.image_token_id == golden_checkpoint.tokenizer.token_id("<IMG_CONTEXT>")
