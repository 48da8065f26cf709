"""Attention about the rows of a source, image by image."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import orjson
import pytest
import torch

from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.attention_maps import GENERIC_QUESTIONS, AttentionReader, first_images
from deeplayer_cli.images.decode import open_image
from deeplayer_cli.models.internvl.tiling import tile_image
from deeplayer_cli.pruning import Budget, Method, Stage, StageShare
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.runtime.calibrate import RecordScores
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.sources import open_source

ROWS = [
    {"id": "a0", "image": "a_square_224.png", "expression": "the dog", "box": [0, 0, 112, 112]},
    {"id": "b0", "image": "b_wide_320x120.png", "expression": "the cat"},
    {"id": "missing", "image": "nothing.png", "expression": "the cat"},
    {"id": "a1", "image": "a_square_224.png", "expression": "the big dog on the left", "box": [56, 56, 224, 224]},
    {"id": "no image"},
]


@pytest.fixture
def source(tmp_path, reference_dir):
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, ROWS)))
    return open_source([str(tmp_path / "rows.jsonl")], image_root=reference_dir / "images")


def reader(checkpoint, kinds=("last",), **options):
    return AttentionReader(checkpoint, Settings(method="none"), kinds, **{"generic": True, **options})


def test_rows_are_read_image_by_image(source, golden_checkpoint, caplog):
    rows = first_images(source, None)
    assert [row.id for row in rows] == ["a0", "a1", "b0", "missing", "no image"]
    with caplog.at_level(logging.WARNING):
        one, other = reader(golden_checkpoint, ("last", "text", "drafted")).read(rows)
    assert "left out: 2 of 5 rows; the first: " in caplog.text and "nothing.png" in caplog.text
    assert (list(one.ids), list(other.ids)) == (["a0", "a1"], ["b0"])
    assert one.by_kind["drafted"].shape == (16, 2, 20) and other.by_kind["text"].shape == (16, 1, 16)
    assert one.generic.shape == (16, 3, 20)
    assert (one.first["last"] > 0).all() and (one.by_kind["last"].sum(-1) + one.first["last"] < 1).all()
    # 2 x 2 tiles of 2 x 2 tokens, then the thumbnail of 2 x 2: the first box covers a quarter of the image
    assert np.flatnonzero(one.targets[0]).tolist() == [0, 1, 2, 3, 16]
    assert not other.targets.any()
    assert [row.id for row in first_images(source, 1) if row.id in ("a0", "a1", "b0")] == ["a0", "a1"]


def test_generic_attention_is_what_a_prior_is_made_of(source, golden_checkpoint, reference_dir):
    """The questions share a prefix here; `calibrate` encodes the question with the text after the image."""
    (one, _) = reader(golden_checkpoint).read(first_images(source, None))
    tiles = torch.from_numpy(
        tile_image(open_image(reference_dir / "images" / ROWS[0]["image"]), golden_checkpoint.tiling)
    )
    for number, question in enumerate(GENERIC_QUESTIONS):
        asked = replace(golden_checkpoint, prompt=golden_checkpoint.prompt.with_question(question))
        for layer in (1, 7, 15):
            record = RecordScores()
            stage = Stage(layer, AttentionScorer(), record, StageShare(Budget(tokens=1)))
            engine = Engine(asked, Method("probe", (stage,)))
            engine.prefill(engine.prefix(engine.encode(tiles[None])), [Row(0, ())], 1)
            assert one.generic[layer - 1, number] == pytest.approx(record.scores[0].numpy(), abs=1e-6)


def test_many_rows_of_an_image_are_read_in_parts(tmp_path, golden_checkpoint, reference_dir):
    rows = [{"image": "a_square_224.png", "expression": f"dog number {n}"} for n in range(19)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    every = list(open_source([str(tmp_path / "rows.jsonl")], image_root=reference_dir / "images"))
    (one,) = reader(golden_checkpoint, generic=False).read(every)
    (alone,) = reader(golden_checkpoint, generic=False).read(every[17:18])
    assert one.by_kind["last"].shape == (16, 19, 20) and one.generic.shape == (16, 0, 20)
    assert one.by_kind["last"][:, 17] == pytest.approx(alone.by_kind["last"][:, 0], abs=1e-6)


def test_a_source_without_a_readable_row_is_refused(source, golden_checkpoint):
    bad = [row for row in source if row.id in ("missing", "no image")]
    with pytest.raises(DeeplayerError, match=r"no row can be read: .*nothing\.png"):
        list(reader(golden_checkpoint).read(bad))
