"""The diagnosis of planted attention: what was planted is what it finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import entropy

from deeplayer_cli.evaluation.attention_maps import ImageAttention
from deeplayer_cli.evaluation.diagnosis import diagnose, token_layout
from deeplayer_cli.pruning import Budget, token_places

SIDE, LAYERS = 8, 2


def planted(n_images=24, *, row=0.0, edge=0.0, content=0.0, grid=(1, 1), prompts=3, noise=1.0):
    """Images whose attention is noise, times a bias by row or towards the edges, times what is on the target."""
    random = np.random.default_rng(11)
    n_tiles = grid[0] * grid[1] + (grid != (1, 1))
    n_visual = n_tiles * SIDE * SIDE
    within = np.arange(SIDE * SIDE)
    y, x = within // SIDE, within % SIDE
    far = np.hypot(y - (SIDE - 1) / 2, x - (SIDE - 1) / 2)
    bias = np.tile(np.exp(row * y / SIDE + edge * far / SIDE), n_tiles)
    for number in range(n_images):
        targets = np.zeros((prompts, n_visual), dtype=bool)
        for target in targets:
            left, top = random.integers(SIDE - 1, size=2)
            target[:] = np.tile((abs(x - left - 0.5) < 1) & (abs(y - top - 0.5) < 1), n_tiles)
        on_target = np.where(targets, np.exp(content), 1.0)
        maps = np.exp(noise * random.standard_normal((LAYERS, prompts, n_visual))) * bias * on_target
        generic = np.exp(noise * random.standard_normal((LAYERS, 3, n_visual))) * bias
        maps, generic = (0.3 * part / part.sum(-1, keepdims=True) for part in (maps, generic))
        first = np.full((LAYERS, prompts), 0.1)
        yield ImageAttention(
            f"{number:x}", grid, n_tiles, range(prompts), {"last": maps}, {"last": first}, generic, targets
        )


def run(images, **options):
    return diagnose(images, "last", Budget(0.1), **{"draws": 400, **options}).layers


GRIDS = pytest.mark.parametrize("grid", [(1, 1), (2, 1)], ids=["one tile", "two tiles and a thumbnail"])


@GRIDS
def test_a_bias_by_row_is_found(grid):
    for layer in run(planted(row=2.0, grid=grid)):
        assert layer.bias.signal == "row" and layer.bias.rho > 0.3
        assert "attention grows towards the bottom" in layer.sentence


@GRIDS
def test_a_bias_towards_the_edges_is_found(grid):
    """The paper's mean of |rho| with row, column and the corner's distance cannot see it: these stay in their bands."""
    for layer in run(planted(edge=3.0, grid=grid)):
        assert layer.bias.signal == "centre" and layer.bias.rho > 0.3
        assert "attention grows towards the edges" in layer.sentence
        within = {one.signal: one for one in layer.places.correlations if one.view == "tile"}
        assert max(abs(within[signal].rho) for signal in ("row", "column", "raster")) < 0.1


@GRIDS
def test_noise_and_content_are_no_bias(grid):
    for images in (planted(grid=grid), planted(grid=grid, content=3.0)):
        for layer in run(images):
            assert not layer.is_biased and layer.bias is None
            assert "no positional bias found" in layer.sentence


def test_a_prior_helps_where_bias_hides_the_target():
    for layer in run(planted(row=5.0, content=2.0, noise=0.5)):
        assert layer.prior_verdict == "helps" and layer.prior.difference.low > 0.1
        assert "dividing by a prior helps" in layer.sentence
        assert f"for this layer alone; p {layer.prior_p:.2g} over all layers)" in layer.sentence


def test_a_prior_hurts_where_there_is_only_content():
    """A prior of a few images is noise. It must not be made of the image that it divides."""
    for layer in run(planted(8, content=3.0, prompts=8)):
        assert not layer.is_biased
        assert layer.prior_verdict == "hurts" and layer.prior.difference.high < 0
    for layer in run(planted(row=2.0)):  # there is nothing to find: chance with and without a prior
        assert layer.prior_verdict == "no difference"


def test_a_prior_is_the_calibrated_one_of_the_other_images():
    images = list(planted(2, row=3.0, content=2.0, grid=(2, 1), prompts=2))
    found = run(images)
    for layer, one in enumerate(found):
        expected = []
        for image, other in (images, images[::-1]):
            asked = (other.generic[layer, 0] * 3 * SIDE**2).reshape(3, SIDE**2)
            prior = np.concatenate([np.tile(asked[:2].mean(0), 2), asked[2]])
            for attention, target in zip(image.by_kind["last"][layer], image.targets, strict=True):
                kept = np.argsort(-attention / (prior + 1e-7))[: 3 * SIDE**2 // 10]
                expected.append(target[kept].sum() / target.sum())
        assert one.prior.kept_divided == pytest.approx(np.mean(expected))


def test_without_gold_boxes_a_prior_cannot_be_measured():
    images = [replace(image, targets=image.targets & False) for image in planted(4)]
    assert all(layer.prior is None and "cannot be measured without gold" in layer.sentence for layer in run(images))
    (one, *_) = run(list(planted(1)))
    assert one.prior is None and one.prior_verdict is None


def test_figures_are_those_of_their_definitions():
    images = list(planted(3, row=1.0))
    images[0].by_kind["last"][0, :, 5] = images[0].generic[0, :, 5] = 1.0  # a sink in one image
    (layer, _) = run(images)
    maps = [image.by_kind["last"][0] for image in images]
    shares = [one / one.sum(-1, keepdims=True) for one in maps]
    assert layer.visual_share == pytest.approx(np.mean([one.sum(-1).mean() for one in maps]))
    assert layer.entropy == pytest.approx(np.mean([entropy(one, axis=-1).mean() for one in shares]) / np.log(SIDE**2))
    assert layer.first_share == pytest.approx(0.1)
    assert layer.n_sinks == pytest.approx(1 / 3)
    assert layer.sink_share == pytest.approx(shares[0][:, 5].mean() / 3)
    cosines = [1 - pdist(one, "cosine").mean() for one in maps]
    assert layer.stability == pytest.approx(np.mean(cosines))
    assert layer.whole_map.shape == (SIDE, SIDE) and layer.whole_map.mean() == pytest.approx(1)


def test_the_layout_is_that_of_token_places():
    (image,) = planted(1, grid=(3, 2))
    places = token_places((3, 2), image.n_tiles, image.targets.shape[1]).numpy()
    layout = token_layout(image)
    assert layout.shape == (2 * SIDE, 3 * SIDE)
    for (row, column), number in np.ndenumerate(layout):
        assert list(places[number]) == [column + 0.5, row + 0.5, 0]


def test_rows_are_flat_and_json_is_plain():
    found = diagnose(planted(3), "last", Budget(0.1), draws=50)
    assert orjson.loads(orjson.dumps(found.to_dict()))["images"] == 3
    for layer in found.layers:
        assert all(not isinstance(value, dict | list) for value in layer.to_row().values())
