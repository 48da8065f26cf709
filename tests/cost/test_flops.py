"""The cost model against torch's own counter, run over the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from deeplayer_cli.checkpoints import random_weights
from deeplayer_cli.cost.flops import decode_flops, kv_bytes, prefill_flops, union_flops, vision_flops, visual_by_layer
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.device.attention_kernels import attention_kernel
from deeplayer_cli.engine import Engine, Row, union_of_rows
from deeplayer_cli.engine.row_groups import RowGroups
from deeplayer_cli.engine.selection import StageSelector
from deeplayer_cli.models.internvl.vision import Encoded
from deeplayer_cli.pruning import Budget, Options, Prior, build, known_methods, token_places
from tests.tiny import FAMILIES, tiny_checkpoint

N_VISUAL = 400
PRIOR = Prior(torch.ones(4), torch.ones(4), layer=2)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request):
    return tiny_checkpoint(request.param, dtype=torch.float32, layers=4 if request.param == "qwen2" else 8)


def counted(function, *arguments):
    """What a call returns, and its operations; the plain kernel, as the counter does not know the CPU's fused one."""
    with attention_kernel("math"), FlopCounterMode(display=False) as counter:
        result = function(*arguments)
    return result, counter.get_total_flops()


def prepared(checkpoint, method, n_visual=N_VISUAL):
    """An engine, an image of ``n_visual`` tokens without its tiles, a row, and what the cost model takes."""
    expression = checkpoint.tokenizer.encode_expression("the dog")
    features = torch.zeros(1, n_visual, checkpoint.model.config.text_config.hidden_size)
    image = Encoded(features, torch.zeros(1, n_visual, 1), torch.zeros(1, n_visual, 1))
    prompt = replace(PromptLengths.from_checkpoint(checkpoint, n_visual, len(expression)), draft=0)  # as for the engine
    return Engine(checkpoint, method), image, Row(0, expression), prompt


def deep_layer(checkpoint, keep):
    layers = checkpoint.model.config.text_config.num_hidden_layers
    return build("none" if keep is None else "deep-layer", Options(Budget(keep or 1.0)), layers)


def unseen_flops(shape, prompt, n_rows, n_layers, n_visual=N_VISUAL):
    """What the cost model leaves out: attention to the slots of other rows of an image, and of empty places."""
    groups, n_shared = RowGroups.by_image([0] * n_rows, torch.device("cpu")), prompt.shared - N_VISUAL + n_visual
    places, n_suffix = len(groups) * groups.size, prompt.suffix
    scores = places * (n_shared + groups.size * n_suffix) - n_rows * (n_shared + n_suffix)
    return 4 * n_layers * shape.text.queries * n_suffix * scores


def unseen_by_scout(shape, prompt, n_rows, n_layers):
    """What the cost model leaves out of a scout: P1 and the suffixes of an image also score what they do not see."""
    p1, suffix = prompt.after_image, prompt.suffix
    together = p1 + n_rows * suffix
    return 4 * n_layers * shape.text.queries * (together**2 - p1**2 - n_rows * suffix * (p1 + suffix))


@pytest.mark.parametrize("name", ["none", "visionzip-nomerge"])
def test_vision_costs_what_is_counted(checkpoint, name):
    method = build(name, Options(Budget(0.1)), checkpoint.model.config.text_config.num_hidden_layers)
    engine, shape = Engine(checkpoint, method), ModelShape.from_config(checkpoint.model.config)
    _, found = counted(engine.encode, torch.zeros(1, 5, 3, 56, 56, dtype=torch.uint8))
    assert found == pytest.approx(vision_flops(shape, 5), rel=0.01)


@pytest.mark.parametrize("keep", [None, 0.1, 0.25, 0.33])
def test_prefill_costs_what_is_counted(checkpoint, keep):
    method = deep_layer(checkpoint, keep)
    engine, image, row, prompt = prepared(checkpoint, method)
    shape = ModelShape.from_config(checkpoint.model.config)
    prefix, shared = counted(engine.prefix, image)
    for n in (1, 3, 7, 15):
        prefilled, own = counted(engine.prefill, prefix, [row] * n, 1)
        unseen = unseen_flops(shape, prompt, n, method.prefix_layers(N_VISUAL, len(prefilled.caches))[0])
        assert shared + own == pytest.approx(prefill_flops(shape, prompt, method, n) + unseen, rel=0.01)
        held = sum(cache.of_rows(prompt.suffix)[0][0].nbytes for cache in prefilled.caches)
        assert 2 * held == kv_bytes(shape, prompt, 4, method)


@pytest.mark.parametrize("layer", [0, 3])
def test_a_union_costs_what_is_counted(checkpoint, layer):
    method = build("random", Options(Budget(0.1), layer=layer), checkpoint.model.config.text_config.num_hidden_layers)
    _, features, row, prompt = prepared(checkpoint, method)
    engine, shape = (
        Engine(checkpoint, method, pruned_layers=union_of_rows),
        ModelShape.from_config(checkpoint.model.config),
    )
    prefix, shared = counted(engine.prefix, features)
    for n in (1, 3, 7):
        rows = [Row(0, row.expression_ids, seed) for seed in range(n)]
        prefilled, own = counted(engine.prefill, prefix, rows, 1)
        n_union = prefilled.kept.indices.shape[1]
        assert n_union > 40 or n == 1
        unseen = unseen_flops(shape, prompt, n, layer)
        unseen += unseen_flops(shape, prompt, n, len(prefilled.caches) - layer, n_union)
        assert shared + own == pytest.approx(union_flops(shape, prompt, method, n_union, n) + unseen, rel=0.01)


@pytest.mark.parametrize("name", [*known_methods(), "random@0"])
def test_every_method_costs_what_is_counted(name, monkeypatch):
    """All but scoring and selecting, which a model of this size would feel."""
    counter, chosen = FlopCounterMode(display=False), []
    plain = StageSelector.__call__

    def measured(self, inputs, n_keep):
        before = counter.get_total_flops()
        selection = plain(self, inputs, n_keep)
        chosen.append(counter.get_total_flops() - before)
        return selection

    monkeypatch.setattr(StageSelector, "__call__", measured)
    checkpoint = tiny_checkpoint(dtype=torch.float32)
    name, _, layer = name.partition("@")
    method = build(name, Options(Budget(0.2), int(layer) if layer else None, prior=PRIOR), 8)
    engine, image, row, prompt = prepared(checkpoint, method)
    places = token_places((10, 10), 100, N_VISUAL)[None]
    with attention_kernel("math"), counter:
        prefilled = engine.prefill(engine.prefix(image, places), [row] * 2, 1)
    shape = ModelShape.from_config(checkpoint.model.config)
    found = counter.get_total_flops() - sum(chosen)
    unseen = unseen_by_scout(shape, prompt, 2, method.layer) if method.scout else 0
    assert found == pytest.approx(prefill_flops(shape, prompt, method, 2) + unseen, rel=0.01)
    held = sum(cache.of_rows(prompt.suffix)[0][0].nbytes for cache in prefilled.caches)
    assert 2 * held == kv_bytes(shape, prompt, 4, method)


@pytest.mark.parametrize("keep", [None, 0.1])
def test_decode_costs_what_is_counted(checkpoint, keep):
    method = deep_layer(checkpoint, keep)
    engine, image, row, prompt = prepared(checkpoint, method)
    prefilled = engine.prefill(engine.prefix(image), [row], 6)
    (answer,), found = counted(engine.decode, prefilled, 6)
    assert len(answer.token_ids) == 6  # or fewer steps were counted
    assert found == pytest.approx(
        decode_flops(ModelShape.from_config(checkpoint.model.config), prompt, 6, method), rel=0.01
    )


def test_what_a_causal_mask_hides_is_half_of_each_square(checkpoint):
    shape, prompt = ModelShape.from_config(checkpoint.model.config), PromptLengths(20, N_VISUAL, 11, 9)
    none, layers = build("none", Options(Budget(1.0)), shape.text.layers), shape.text.layers

    def hidden(method):
        return prefill_flops(shape, prompt, method) - prefill_flops(shape.without_hidden_pairs(), prompt, method)

    # The suffix has a mask, and so has what the last layer, and the layer of a drop, put out: there, all pairs count.
    square = 2 * (20 + N_VISUAL + 11) ** 2 * shape.text.queries
    assert hidden(none) == (layers - 1) * square
    pruned = 2 * (20 + N_VISUAL // 10 + 11 + 9) ** 2 * shape.text.queries
    assert hidden(build("deep-layer", Options(Budget(0.1), layer=layers - 2), layers)) == (layers - 3) * square + pruned


def test_internvl2_5_8b_costs_what_a_roofline_says():
    """By hand: 0.74 TFLOP a tile; 26.9 for an unpruned prompt of 7 tiles; 12.3 with 10% of it after all of layer 12."""
    shape = ModelShape.from_config(random_weights.read("random:8b").config)
    prompt = PromptLengths(42, 7 * 256, 17, 14)
    none, pruned = (build(name, Options(Budget(0.1)), 32) for name in ("none", "deep-layer-mis"))
    assert vision_flops(shape, 1) == pytest.approx(0.74e12, rel=0.03)
    assert prefill_flops(shape, prompt, none) == pytest.approx(26.93e12, rel=0.05)
    assert prefill_flops(shape, prompt, pruned) == pytest.approx(12.3e12, rel=0.05)
    assert kv_bytes(shape, prompt, 2, none) / (7 * 256 + 73) == 131072


@given(st.floats(0.01, 1), st.integers(1, 500), st.sampled_from(list(known_methods())))
def test_what_each_layer_sees_is_the_mean_keep(keep, n_visual, name):
    method = build(name, Options(Budget(keep), prior=PRIOR), 8)
    seen = visual_by_layer(method, n_visual, 8)
    assert seen == sorted(seen, reverse=True)
    assert sum(seen) / (8 * n_visual) == pytest.approx(method.mean_keep(n_visual, 8))


def test_more_expressions_share_the_image():
    shape, prompt = ModelShape.from_config(tiny_checkpoint().model.config), PromptLengths(10, 400, 5, 8)
    none, half = (build(name, Options(Budget(0.5), layer=3), 8) for name in ("none", "random"))
    alone = prefill_flops(shape, prompt, none)
    assert prefill_flops(shape, prompt, none, 7) < 1.5 * alone < prefill_flops(shape, prompt, half, 7)
