"""The attention that is drawn is what the method of the row kept tokens by."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplayer_cli import checkpoints
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.report.attention_heat import AttentionHeat
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sources import open_source

SAMPLES = Path(__file__).parents[2] / "sample_data"


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoints.load("demo")


@pytest.mark.parametrize(
    ("method", "query", "said"),
    [
        ("deep-layer", "last", "last prompt token in layer 6,"),
        ("deep-layer", "text", "expression's tokens in layer 6,"),
        ("fastv", "last", "last prompt token in layer 2,"),
        ("primed", "last", "last token of the draft in layer 6,"),
    ],
)
def test_the_kept_tokens_have_the_highest_attention(checkpoint, method, query, said):
    rows = list(islice(open_source([str(SAMPLES)]), 16))[::5]
    grounder = Grounder(checkpoint, Settings(method=method, query=query, with_kept=True))
    heat_of, seen = AttentionHeat(checkpoint, query=query), set()
    for row in grounder.ground(rows):
        heat = heat_of(Image.open(SAMPLES / row.image).convert("RGB"), row)
        assert said in heat.title and heat.tiles == row.tiles
        assert sorted(np.argsort(heat.values)[-row.kept_tokens :].tolist()) == row.kept
        seen.add(heat.tiles.columns)
    assert seen == {1, 2}


def test_rows_without_an_own_layer_show_the_grounding_layer(checkpoint):
    image = Image.new("RGB", (192, 192))
    row = Prediction("a", "a.png", "the red star", "ok", method="none")
    assert "layer 6," in AttentionHeat(checkpoint)(image, row).title
    assert "layer 8," in AttentionHeat(checkpoint, 8)(image, row).title
    assert AttentionHeat(checkpoint)(image, Prediction("a", "a.png", "x", "error")) is None
    with pytest.raises(DeeplayerError, match="--layer 9 is out of range"):
        AttentionHeat(checkpoint, 9)
