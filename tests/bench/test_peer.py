"""vLLM beside the engine: refusals, and where vLLM is installed, the same answers."""

from __future__ import annotations

from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch

from deeplayer_cli import checkpoints
from deeplayer_cli.bench import SUITES, BenchPlan, measure, require_vllm
from deeplayer_cli.bench.vllm_peer import picture, with_placeholder
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.tiling import Tiling, tile_image


def test_without_vllm_one_sentence_says_how_to_install_it():
    with (
        patch("deeplayer_cli.bench.vllm_peer.find_spec", return_value=None),
        pytest.raises(DeeplayerError, match="pip install vllm"),
    ):
        require_vllm("random:mini")


def test_only_random_weights_are_written():
    with (
        patch("deeplayer_cli.bench.vllm_peer.find_spec", return_value=object()),
        pytest.raises(DeeplayerError, match="use --model random:8b, not demo"),
    ):
        require_vllm("demo")


@pytest.mark.parametrize("n_tiles", [1, 3, 7, 13])
def test_a_picture_has_the_tiles_asked_for(n_tiles):
    assert len(tile_image(picture(n_tiles, 28), Tiling(28, max_tiles=12))) == n_tiles


def test_no_picture_has_two_tiles():
    with pytest.raises(DeeplayerError, match="--tiles 2"):
        picture(2, 28)


def test_a_prompt_has_one_token_for_the_image():
    assert with_placeholder([5, 6, 1, 2, 2, 2, 3, 7], 1, 2, 3) == [5, 6, 2, 7]


@pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM")
def test_vllm_gives_the_same_answers():
    checkpoint = checkpoints.load("random:mini")
    plan = BenchPlan(tiles=(1,), expressions=(3,), n_new=4)
    results = list(measure(list(SUITES["peer"](checkpoint, plan)), 1, torch.device("cpu")))
    assert "vLLM" in results[0].case.name and all(result.equal == 1 for result in results)
