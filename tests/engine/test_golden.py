"""The engine against arrays recorded from the original InternVL2.5 code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.models.internvl.tiling import tile_image
from deeplayer_cli.pruning import Budget, Method, Options, Stage, StageShare, build
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.runtime.calibrate import RecordScores


@pytest.fixture(scope="module")
def golden(reference_dir):
    samples = json.loads((reference_dir / "golden.json").read_text())["samples"]
    return samples, np.load(reference_dir / "golden.npz")


def tiles_of(reference_dir, checkpoint, sample):
    return torch.from_numpy(tile_image(open_image(reference_dir / sample["image"]), checkpoint.tiling))[None]


def row_of(checkpoint, sample):
    return Row(0, checkpoint.tokenizer.encode_expression(sample["expression"]))


def test_unpruned_answers_and_logits(reference_dir, golden_checkpoint, golden):
    samples, arrays = golden
    engine = Engine(golden_checkpoint, build("none", Options(Budget()), 16))
    for sample in samples:
        wanted = arrays[f"{sample['key']}.generated_ids"].tolist()
        prefix = engine.prefix(engine.encode(tiles_of(reference_dir, golden_checkpoint, sample)))
        prompts = engine.prefill(prefix, [row_of(golden_checkpoint, sample)], len(wanted))
        last = torch.from_numpy(arrays[f"{sample['key']}.logits_last8"][-1])
        assert (prompts.logits[0, 0] - last).abs().max() < 1e-4
        assert engine.decode(prompts, len(wanted))[0].token_ids == wanted


def test_scores_are_the_original_attention_of_every_layer(reference_dir, golden_checkpoint, golden):
    samples, arrays = golden
    scorer = AttentionScorer()
    for sample in samples:
        rows = torch.from_numpy(arrays[f"{sample['key']}.attn_last_row_all_layers"]).mean(1)
        wanted = rows[:, arrays[f"{sample['key']}.image_positions"]]
        tiles = tiles_of(reference_dir, golden_checkpoint, sample)
        for layer in range(1, 16):  # nothing can be dropped after the last of 16
            probe = RecordScores()
            engine = Engine(
                golden_checkpoint, Method("probe", (Stage(layer, scorer, probe, StageShare(Budget(tokens=2))),))
            )
            engine.prefill(engine.prefix(engine.encode(tiles)), [row_of(golden_checkpoint, sample)], 1)
            assert (probe.scores[0] - wanted[layer - 1]).abs().max() < 1e-5
