"""Where the model looks, against transformers' eager attention."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from deeplayer_cli import checkpoints
from deeplayer_cli.app import app
from deeplayer_cli.demo.looking import grounding_layer, looks
from deeplayer_cli.demo.scenes import HELD_OUT_SEEDS, scene
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.tiling import tile_image
from deeplayer_cli.models.internvl.vision import normalize
from tests.engine.reference import PlainModel


def test_shares_are_those_of_eager_attention() -> None:
    checkpoint = checkpoints.load("demo", dtype="float64", device="cpu")
    one, plain = scene(HELD_OUT_SEEDS[7]), PlainModel(checkpoint)
    area, found = looks(checkpoint, [one])
    side = checkpoint.tiling.tile_size
    features = plain.features(normalize(torch.from_numpy(tile_image(one.image, checkpoint.tiling))))
    checkpoint.model.set_attn_implementation("eager")
    shares, areas = {"last": [], "drafted": []}, []
    for referral in one.referrals[:4]:
        centres = [(16 * column + 8, 16 * row + 8) for row in range(12) for column in range(12)]
        left, top, right, bottom = referral.box
        target = torch.tensor([left <= x <= right and top <= y <= bottom for x, y in centres])
        areas.append(target.double().mean())
        prompt = plain.prompt_ids(referral.expression, 144)
        expression = checkpoint.tokenizer.encode_expression(referral.expression)
        ids = [*prompt, *TemplateDraft.from_tokenizer(checkpoint.tokenizer)(expression, ())]
        embeds = plain.decoder.embed_tokens(torch.tensor([ids]))
        visual = plain.visual_positions(ids)
        embeds[0, visual] = features
        with torch.no_grad():
            attentions = plain.decoder(inputs_embeds=embeds, output_attentions=True).attentions
        for name, row in (("last", len(prompt) - 1), ("drafted", len(ids) - 1)):
            scores = torch.stack([layer[0, :, row, visual].mean(0) for layer in attentions[:-1]])
            shares[name].append(scores[:, target].sum(1) / scores.sum(1))
    assert one.image.size == (side, side)
    assert area == pytest.approx(float(sum(areas) / len(areas)), abs=1e-6)
    for name, per_row in shares.items():
        expected = torch.stack(per_row).mean(0).tolist()
        assert [getattr(look, name) for look in found] == pytest.approx(expected, abs=1e-5)


def test_the_shipped_model_names_the_layer_where_it_looks() -> None:
    checkpoint = checkpoints.load("demo", device="cpu")
    assert checkpoint.grounding_layer == grounding_layer(checkpoint)


def test_the_command_tells_every_layer_but_the_last() -> None:
    told = CliRunner().invoke(app, ["demo", "look", "--count", "2"])
    assert told.exit_code == 0, told.output
    assert "evenly spread attention would give" in told.output and "│ 7 " in told.output
