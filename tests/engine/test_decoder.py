"""One layer's functions: the mask that layers share."""

from __future__ import annotations

from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.engine.decoder import attend, packed_mask
from deeplayer_cli.engine.language_model import LanguageModel
from tests.tiny import tiny_checkpoint


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.booleans())
def test_a_packed_mask_hides_what_the_plain_mask_hides(n_rows, group, length, n_keys, shared):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(n_rows, heads, tokens, 4, generator=generator)
        for heads, tokens in ((2 * group, length), (2, n_keys), (2, n_keys))
    )
    visible = torch.rand(1 if shared else n_rows, 1, length, n_keys, generator=generator) < 0.5
    visible[..., 0] = True  # a softmax over no key is not finite
    mask = packed_mask(visible, group, torch.float32)
    assert all(stride % 8 == 0 for stride in mask.stride()[:-1])  # otherwise, SDPA copies it in every layer on CUDA
    assert torch.equal(attend(queries, keys, values, mask), attend(queries, keys, values, visible))


def test_states_are_normalised_without_a_change_of_the_layer():
    language = LanguageModel(tiny_checkpoint(dtype=torch.float32).model, [1, 2, 3])
    norm, hidden, weights = language.layers[0].input_layernorm, torch.randn(1, 2, 64), []
    expected = norm(hidden)
    with torch.no_grad(), patch.object(type(norm), "__call__", lambda *_: weights.append(norm.weight)):
        language.normalise_frozen(hidden)  # another thread may run the layer meanwhile
    assert weights[0] is norm.weight
    torch.testing.assert_close(language.normalise_frozen(hidden) * norm.weight, expected)
