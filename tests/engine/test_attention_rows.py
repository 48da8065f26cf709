"""Attention rows of all layers in one pass: against the original code and transformers' eager attention."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.tiling import tile_image
from deeplayer_cli.models.internvl.vision import normalize
from deeplayer_cli.pruning import Budget, Method, Options, build
from tests.engine.reference import PlainModel
from tests.tiny import tiny_checkpoint


def test_the_last_rows_are_those_of_the_original_code(reference_dir, golden_checkpoint):
    samples = json.loads((reference_dir / "golden.json").read_text())["samples"]
    arrays = np.load(reference_dir / "golden.npz")
    engine = Engine(golden_checkpoint, Method("none"))
    for sample in samples:
        wanted = torch.from_numpy(arrays[f"{sample['key']}.attn_last_row_all_layers"]).mean(1)  # (L, N)
        tiles = torch.from_numpy(tile_image(open_image(reference_dir / sample["image"]), golden_checkpoint.tiling))
        row = Row(0, golden_checkpoint.tokenizer.encode_expression(sample["expression"]))
        found = engine.attention(engine.prefix(engine.encode(tiles[None])), [row], ["last"])
        assert (found.by_kind["last"][:, 0] - wanted).abs().max() < 1e-5
        positions = arrays[f"{sample['key']}.image_positions"]
        assert [found.visual.start, found.visual.stop - 1] == [positions[0], positions[-1]]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_every_kind_of_row_is_that_of_eager_attention(family):
    """A batch of two images and of expressions of different lengths, each against its prompt alone."""
    checkpoint = tiny_checkpoint(family)
    draft, plain = TemplateDraft.from_tokenizer(checkpoint.tokenizer), PlainModel(checkpoint)
    engine = Engine(checkpoint, Method("none"), draft=draft)
    tiles = torch.randint(0, 256, (2, 3, 3, 56, 56), dtype=torch.uint8, generator=torch.manual_seed(1))
    texts = ["the dog", "a cat on the far left", "x"]
    rows = [
        Row(image, checkpoint.tokenizer.encode_expression(text)) for image, text in zip((0, 1, 1), texts, strict=True)
    ]
    found = engine.attention(engine.prefix(engine.encode(tiles)), rows, ["last", "text", "drafted"])
    with plain.eager():
        for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
            prompt = plain.prompt_ids(text, 12)
            ids = [*prompt, *draft(row.expression_ids, ())]
            embeds = plain.decoder.embed_tokens(torch.tensor([ids]))
            embeds[0, plain.visual_positions(ids)[:12]] = plain.features(normalize(tiles[row.image]))
            with torch.no_grad():
                attentions = plain.decoder(inputs_embeds=embeds, output_attentions=True).attentions
            rows_of = torch.stack(attentions)[:, 0].mean(1)  # (L, N, N)
            expression = slice(len(prompt) - len(row.expression_ids) - len(engine._closing), None)
            wanted = {
                "last": rows_of[:, len(prompt) - 1],
                "text": rows_of[:, expression][:, : len(row.expression_ids)].mean(1),
                "drafted": rows_of[:, -1],
            }
            for kind, expected in wanted.items():
                read = found.by_kind[kind][:, number]
                assert (read[:, : len(ids)] - expected).abs().max() < 1e-5, kind
                assert not read[:, len(ids) :].any()


def test_a_prefix_that_ends_early_is_refused():
    checkpoint = tiny_checkpoint()
    tiles = torch.zeros(1, 3, 3, 56, 56, dtype=torch.uint8)
    pruning = Engine(checkpoint, build("deep-layer", Options(Budget(0.5)), 8))
    with pytest.raises(ValueError, match="through all layers"):
        pruning.attention(pruning.prefix(pruning.encode(tiles)), [Row(0, [5])], ["last"])
