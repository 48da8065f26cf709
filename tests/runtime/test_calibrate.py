"""D2Pruner's prior: what it averages, and that it serves its own model and layer alone."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import internvl2_5
from deeplayer_cli.models.internvl.tiling import tile_image
from deeplayer_cli.models.internvl.vision import normalize
from deeplayer_cli.pruning import Budget, Options, Prior, build
from deeplayer_cli.pruning.attention import AttentionScorer
from deeplayer_cli.pruning.methods.d2pruner import RelativeScorer
from deeplayer_cli.runtime.calibrate import calibrate
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.runtime.prior_file import load_prior, save_prior
from deeplayer_cli.runtime.settings import Settings
from tests.engine.reference import PlainModel
from tests.pruning.test_pruning import make_inputs
from tests.tiny import tiny_checkpoint

LAYER = 2


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def images():
    rng = random.Random(3)
    return [Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize(size) for size in ((60, 60), (120, 60), (61, 60))]


@pytest.fixture(scope="module")
def prior(checkpoint, images):
    return calibrate(checkpoint, images, LAYER)


def eager_attention(checkpoint, images):
    """The attention to each token of each tile of each image, (tiles, 4) for every image."""
    plain = PlainModel(replace(checkpoint, prompt=internvl2_5("You see.")))
    for image in images:
        cut = torch.from_numpy(tile_image(image, checkpoint.tiling))
        text = (
            f"<|im_start|>system\nYou see.<|im_end|>\n<|im_start|>user\n<img>{'<IMG_CONTEXT>' * 4 * len(cut)}</img>\n"
        )
        text += "Please describe the provided image.<|im_end|>\n<|im_start|>assistant\n"
        ids = checkpoint.tokenizer.encode(text)
        yield plain.scores(ids, plain.features(normalize(cut)), LAYER, [len(ids) - 1]).view(-1, 4)


def test_the_prior_is_the_mean_of_eager_attention(checkpoint, images, prior):
    wholes, tiles = [], []
    for by_tile in eager_attention(checkpoint, images):
        by_tile *= by_tile.numel()
        wholes.append(by_tile[-1])
        tiles += list(by_tile[:-1])
    assert [len(wholes), len(tiles)] == [3, 2]
    assert torch.allclose(prior.whole, torch.stack(wholes).mean(0).float(), atol=1e-6)
    assert torch.allclose(prior.tile, torch.stack(tiles).mean(0).float(), atol=1e-6)


def test_the_papers_prior_is_one_mean_over_all_tiles(checkpoint, images):
    prior = calibrate(checkpoint, images, LAYER, together=True)
    mean = torch.cat(list(eager_attention(checkpoint, images))).mean(0).float()
    assert torch.allclose(prior.whole, mean, atol=1e-6) and torch.equal(prior.whole, prior.tile)


def test_scores_are_attention_over_the_prior_of_the_place():
    inputs = make_inputs(torch.ones(1, 1, 16, dtype=torch.bool))
    places = torch.tensor([[0.5, 0.5, 0], [1.5, 0.5, 0], [2.5, 1.5, 0], [0.5, 0.5, 1], [1.5, 1.5, 1]])
    inputs = inputs._replace(n_visual=5, places=places[None])
    prior = Prior(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([16.0, 32.0, 64.0, 128.0]), LAYER)
    expected = AttentionScorer()(inputs) / torch.tensor([1.0, 2.0, 4.0, 16.0, 128.0])
    assert torch.allclose(RelativeScorer(prior)(inputs), expected)


def test_padding_changes_no_relative_score():
    visible = torch.ones(2, 1, 16, dtype=torch.bool)
    visible[1, :, -2:] = False  # a prompt that is two tokens shorter than the other
    inputs = make_inputs(visible)
    inputs = inputs._replace(prompt_tokens=visible[:, 0], places=torch.zeros(2, inputs.n_visual, 3))
    scorer = RelativeScorer(Prior(torch.ones(4), torch.ones(4), LAYER))
    alone = scorer(inputs.without_padding(torch.tensor([1]), 14, 1))
    assert scorer.takes_padding and torch.allclose(scorer(inputs)[1:], alone)


def test_a_prior_is_read_as_it_was_written(checkpoint, prior, tmp_path):
    save_prior(prior, tmp_path / "p", checkpoint, 3)
    read = load_prior(tmp_path / "p", checkpoint)
    assert torch.equal(read.tile, prior.tile) and torch.equal(read.whole, prior.whole) and read.layer == LAYER
    grounder = Grounder(checkpoint, Settings("d2pruner", prior=tmp_path / "p"))
    assert grounder.method.layer == LAYER


def test_a_prior_is_written_like_any_file(checkpoint, prior, tmp_path):
    """safetensors' own writer puts a file of mode 600 in the place of whatever is there: a pipe, /dev/null."""
    path, pipe, other = tmp_path / "p", tmp_path / "pipe", tmp_path / "other"
    save_prior(prior, path, checkpoint, 3)
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    save_prior(prior, pipe, checkpoint, 3)
    assert pipe.is_fifo() and len(os.read(reader, 1 << 20)) == path.stat().st_size
    os.close(reader)


def test_a_prior_of_another_model_layer_or_kind_is_refused(checkpoint, prior, tmp_path):
    path = tmp_path / "p"
    save_prior(prior, path, checkpoint, 3)
    with pytest.raises(DeeplayerError, match="made with tiny-llama, whose weights are not those of tiny-qwen2"):
        load_prior(path, tiny_checkpoint("qwen2"))
    with pytest.raises(DeeplayerError, match="layer 3: the prior belongs to layer 2"):
        build("d2pruner", Options(Budget(0.1), layer=3, prior=prior), 8)
    with pytest.raises(DeeplayerError, match="d2pruner needs --prior"):
        Settings("d2pruner")
    with pytest.raises(DeeplayerError, match="deep-layer takes no --prior"):
        Settings("deep-layer", prior=path)
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(DeeplayerError, match="broken is not a prior, or is damaged: make one with"):
        load_prior(tmp_path / "broken", checkpoint)
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DeeplayerError, match="is not a prior"):
            load_prior(endless, checkpoint)
    with pytest.raises(DeeplayerError, match="gone cannot be read: No such file"):
        load_prior(tmp_path / "gone", checkpoint)


def test_without_an_image_there_is_no_prior(checkpoint):
    with pytest.raises(DeeplayerError, match="no image could be read"):
        calibrate(checkpoint, [], LAYER)
