"""Attention by blocks equals torch's own, with every number of heads, tokens and threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from deeplayer_cli.device import blocked_attention
from deeplayer_cli.engine import decoder

if not torch.backends.mkldnn.is_available():
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


_AFTER_MAIN = """
import threading, torch
from deeplayer_cli.device.blocked_attention import attention

@torch.inference_mode()
def attended():
    return attention(queries, queries[:, :2], queries[:, :2], is_causal=True)

def go_on():
    with torch.inference_mode():
        ended.wait()
        assert torch.equal(attended(), before)
    print(torch.get_num_threads())

torch.set_num_threads(2)
queries, ended = torch.randn(1, 4, 700, 32), threading.Event()
before = attended()
threading.Thread(target=go_on).start()
threading._register_atexit(ended.set)  # runs when the main thread has ended
"""


def projections(n_rows: int, kv_heads: int, group: int, length: int, head_dim: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (kv_heads * group, kv_heads, kv_heads)
    # Tokens before heads in memory, as a layer's projections lie.
    return [torch.randn(n_rows, length, n, head_dim, generator=generator).transpose(1, 2) for n in heads]


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2), st.integers(1, 3), st.sampled_from([1, 2, 3, 7, 300]), st.integers(1, 300), st.booleans())
def test_it_computes_what_torch_does(n_rows, kv_heads, group, length, is_causal):
    length = min(length, 20) if group == 300 else length
    queries, keys, values = projections(n_rows, kv_heads, group, length, 16)
    with torch.inference_mode():
        ours = blocked_attention.attention(queries, keys, values, is_causal=is_causal)
    exact = scaled_dot_product_attention(
        queries.double(), keys.double(), values.double(), is_causal=is_causal, enable_gqa=True
    )
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([1, 2, 300]),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([torch.bool, torch.float32]),
)
def test_with_a_mask_it_computes_what_torch_does(n_rows, is_shared, group, length, n_keys, dtype):
    length = min(length, 20) if group == 300 else length
    queries = projections(n_rows, 2, group, length, 16)[0]
    # A cache has space behind its keys.
    keys, values = (torch.randn(n_rows, 2, n_keys + 5, 16)[:, :, :n_keys] for _ in "kv")
    visible = torch.rand(1 if is_shared else n_rows, 1, length, n_keys) < 0.5
    visible[..., 0] = True
    mask = visible if dtype == torch.bool else torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
    with torch.inference_mode():
        ours = blocked_attention.attention(queries, keys, values, mask=mask)
    exact = scaled_dot_product_attention(
        queries.double(), keys.double(), values.double(), attn_mask=visible, enable_gqa=True
    )
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_causal", [True, False])
def test_in_16_bits_only_the_result_is_rounded(dtype, is_causal):
    queries, keys, values = (part.to(dtype) for part in projections(2, 2, 4, 300, 16))
    mask = None if is_causal else torch.ones(300, 300, dtype=torch.bool).tril_(7)[None, None]
    packed = None if mask is None else torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf)
    with torch.inference_mode():
        ours = blocked_attention.attention(queries, keys, values, is_causal=is_causal, mask=packed)
    exact = scaled_dot_product_attention(
        queries.double(), keys.double(), values.double(), attn_mask=mask, is_causal=is_causal, enable_gqa=True
    )
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=torch.finfo(dtype).eps)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 2), st.sampled_from([1, 4, 7]), st.integers(1, 200), st.integers(0, 40))
def test_the_last_tokens_attend_to_the_tokens_before_them(n_rows, group, length, n_before):
    queries, keys, values = projections(n_rows, 2, group, n_before + length, 16)
    with torch.inference_mode():
        whole = blocked_attention.attention(queries, keys, values, is_causal=True)
        last = blocked_attention.attention(queries[:, :, n_before:], keys, values, is_causal=True)
    torch.testing.assert_close(last, whole[:, :, n_before:], atol=1e-6, rtol=1e-5)


def test_threads_change_no_number_and_are_left_as_they_were(threads):
    projected = projections(2, 2, 4, 700, 32)
    with torch.inference_mode():
        torch.set_num_threads(1)
        alone = blocked_attention.attention(*projected, is_causal=True)
        torch.set_num_threads(threads)
        assert torch.equal(blocked_attention.attention(*projected, is_causal=True), alone)
    assert torch.get_num_threads() == threads
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [threads]


def test_a_thread_that_outlives_the_main_thread_gets_the_same_numbers_and_keeps_its_cores():
    done = subprocess.run([sys.executable, "-c", _AFTER_MAIN], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_each_of_its_threads_uses_one_core(threads):
    cores: list[int] = []

    def note(inputs, weight):
        cores.append(torch.get_num_threads())
        return multiply(inputs, weight)

    multiply = blocked_attention.multiply
    with torch.inference_mode(), patch.object(blocked_attention, "multiply", note):
        blocked_attention.attention(*projections(2, 2, 4, 700, 32), is_causal=True)
    assert set(cores) == {1}


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    projected = projections(3, 2, 2, 600, 16)
    with torch.inference_mode():
        together = blocked_attention.attention(*projected, is_causal=True)
        alone = blocked_attention.attention(*(part[1:2] for part in projected), is_causal=True)
    assert torch.equal(together[1:2], alone)


def test_which_calls_it_serves(threads):
    torch.set_num_threads(1)
    long, short, keys = torch.ones(1, 8, 256, 32), torch.ones(1, 8, 255, 32), torch.ones(1, 2, 128, 32)
    assert not blocked_attention.serves(long, keys)  # outside inference mode
    with torch.inference_mode():
        assert blocked_attention.serves(long, keys)
        assert blocked_attention.serves(long.bfloat16(), keys.bfloat16())
        assert not blocked_attention.serves(short, keys)
        assert not blocked_attention.serves(long, keys[:, :, 1:])
        assert not blocked_attention.serves(long, keys.expand(4, -1, -1, -1).reshape(1, 8, 128, 32))
        assert not blocked_attention.serves(long.double(), keys.double())
        assert not blocked_attention.serves(long.to("meta"), keys.to("meta"))
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
            assert not blocked_attention.serves(long, keys)
        assert blocked_attention.serves(long, keys)
        torch.set_num_threads(threads)
        assert blocked_attention.serves(long, keys.repeat(1, 1, threads, 1))
        assert blocked_attention.serves(long, keys) is (threads == 1)


def test_a_torch_without_the_product_uses_its_own_kernel():
    blocked_attention._can_multiply.cache_clear()
    with patch("deeplayer_cli.device.packed_linear.multiply", side_effect=AttributeError), torch.inference_mode():
        queries, keys, values = projections(1, 1, 2, 512, 32)
        attended = decoder.attend_causally(queries, keys, values, queries[:, :, :0])
        assert not blocked_attention.serves(queries, keys)
    blocked_attention._can_multiply.cache_clear()
    assert torch.equal(attended, scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True))
