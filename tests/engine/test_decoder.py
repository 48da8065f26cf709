"""One layer's functions: the mask that layers share."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.engine.decoder import attend, packed_mask


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
