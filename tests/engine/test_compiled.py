"""The layers over suffixes and answers through torch.compile: no graph break, few graphs, few kernels, same results."""

from __future__ import annotations

import re

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.utils import run_and_get_code

from deeplayer_cli.engine import decoder
from deeplayer_cli.engine.kv_cache import CacheSlots, LayerCache
from deeplayer_cli.engine.language_model import LanguageModel, run_cached_layer
from deeplayer_cli.engine.row_groups import RowGroups
from tests.engine.test_engine import N_NEW, PLACES, make_engine, tiles  # noqa: F401 - a fixture
from tests.engine.test_row_groups import of_many
from tests.tiny import tiny_checkpoint

KERNELS_A_LAYER = 20  # at most
GRAPHS = 5  # one row; rows alone; rows of one image; groups of rows; groups of one row each, in another order
BATCHES = ([0], [0, 1], [0, 0, 0], [0, 1, 0, 1, 1, 0], [1] * 9, [0] * 4 + [1] * 5)


@pytest.mark.parametrize("methods", [("none", "random"), ("scout-focus",)])
def test_few_graphs_serve_every_batch(tiles, monkeypatch, methods):  # noqa: F811
    counter = CompileCounterWithBackend("eager")
    plain = torch.compile
    monkeypatch.setattr(decoder, "_MLP_BLOCK", 8)  # what runs uncompiled has blocks, graphs have none
    checkpoint = tiny_checkpoint()
    eager = {method: make_engine(checkpoint, method) for method in methods}
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **options: plain(function, **options, backend=counter))
    for method, reference in eager.items():
        engine = make_engine(checkpoint, method, compiled=True)
        monkeypatch.setattr(engine, "_selects", reference._selects)  # what is counted are the layers
        for images in BATCHES:
            for n_tiles in (5, 2):
                prefix = engine.prefix(engine.encode(tiles[:, :n_tiles]), PLACES[: 4 * n_tiles].expand(2, -1, -1))
                rows = of_many(checkpoint, images)
                found, expected = (one.answer(prefix, rows, N_NEW) for one in (engine, reference))
                assert [answer.token_ids for answer in found] == [answer.token_ids for answer in expected]
    assert 1 < counter.frame_count <= GRAPHS


def test_one_graph_serves_every_number_of_keys():
    torch._dynamo.reset()
    counter, (n_rows, n_new) = CompileCounterWithBackend("eager"), (4, 3)
    language = LanguageModel(tiny_checkpoint(dtype=torch.float32).model, [1, 2, 3])
    compiled = torch.compile(run_cached_layer, dynamic=True, fullgraph=True, backend=counter)
    numbers, hidden = torch.arange(n_new).expand(n_rows, -1), torch.randn(n_rows, n_new, 64)
    for n_shared in range(29, 38):  # 32 keys at first
        slots = CacheSlots(RowGroups.alone(n_rows, torch.device("cpu")), n_shared, 9, n_shared)
        step = slots.step(numbers, numbers, n_new, language.group, language.dtype)
        shared = torch.randn(1, 2, n_shared, 16)
        with torch.inference_mode():
            cache = LayerCache.from_shared(slots, shared, shared, [0] * n_rows)
            compiled(language.layers[0], hidden, language.rotation(n_shared + numbers), cache, step)
    assert counter.frame_count == 1


def test_a_compiled_layer_runs_few_kernels_and_equals_the_eager_one():
    """The graph of inductor for a CPU: matrix products, attention, and what is fused between them."""
    torch._dynamo.reset()
    n_rows, n_new, n_shared = 3, 2, 30
    language = LanguageModel(tiny_checkpoint(dtype=torch.float32).model, [1, 2, 3])
    slots = CacheSlots(RowGroups.alone(n_rows, torch.device("cpu")), n_shared, 8, n_shared)
    numbers = torch.arange(n_new).expand(n_rows, -1)
    rotation = language.rotation(n_shared + numbers)
    step = slots.step(numbers, numbers, n_new, language.group, language.dtype)
    generator = torch.Generator().manual_seed(0)
    shared, hidden = (torch.randn(shape, generator=generator) for shape in ((3, 2, n_shared, 16), (n_rows, n_new, 64)))

    def run(function):
        cache = LayerCache.from_shared(slots, shared, shared, [0, 1, 2])
        return *function(language.layers[0], hidden, rotation, cache, step), cache.keys, cache.values

    compiled = torch.compile(run_cached_layer, dynamic=True, fullgraph=True)
    with torch.inference_mode():
        found, (code,) = run_and_get_code(run, compiled)
        expected = run(run_cached_layer)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    body = code[code.index("def call(") :]
    calls = re.findall(
        r"^\s+(?:\w+ = )?(?:cpp_fused\w+|extern_kernels\.\w+|torch\.ops\.\S+)\(", body, flags=re.MULTILINE
    )
    assert 7 + 1 < len(calls) <= KERNELS_A_LAYER  # of these, seven are matrix products and one is attention
