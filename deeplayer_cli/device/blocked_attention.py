"""Attention on a CPU: blocks of queries, multiplied by oneDNN in float32.

torch's own kernel multiplies by MKL, in bfloat16 too, at less than half of oneDNN's rate on the processor of
`bench/README.md`.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deeplayer_cli.device.attention_kernels import is_kernel_preferred
from deeplayer_cli.device.packed_linear import can_multiply, multiply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ROWS = 448  # of a product: the queries of a block, for all heads that share keys
# Of numbers, for a head of keys and for each thread; below, torch's kernel is as fast. Threads hold Python's lock while
# they start a product, so the more there are, the longer blocks must be.
_LEAST_PRODUCTS = 2**22


def serves(queries: Tensor, keys: Tensor) -> bool:
    """Whether `attention` is the kernel to use for queries (B, heads, T, D) and keys (B, kv_heads, S, D)."""
    return (
        queries.device.type == "cpu"
        and queries.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not torch.compiler.is_compiling()  # before the shapes, which a graph would be bound to
        and queries[0].numel() // keys.shape[1] * keys.shape[2] >= _LEAST_PRODUCTS * torch.get_num_threads()
        and torch.is_inference_mode_enabled()
        and not is_kernel_preferred()
        and _can_multiply()
    )


def attention(
    queries: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Compute what `scaled_dot_product_attention` does. It must run in inference mode.

    A block is computed by one thread, so its numbers do not depend on the number of threads.

    Args:
        queries: (B, heads, T, head_dim) on a CPU.
        keys: (B, kv_heads, S, head_dim).
        values: (B, kv_heads, S, head_dim).
        is_causal: whether each query attends only to the keys up to its own place. The queries then belong to the last
            T tokens.
        mask: (B or 1, 1, T, S), the keys that each query attends to as bool, or what is added to the scores.

    Returns:
        (B, heads, T, head_dim), in the dtype of the queries.
    """
    (n_rows, n_heads, length, head_dim), (_, kv_heads, n_keys, _) = queries.shape, keys.shape
    group, n_before = n_heads // kv_heads, n_keys - length
    size = max(1, _ROWS // group)
    # Powers of 2 instead of e: torch's exp2 is several times as fast as its exp and its softmax.
    scale = head_dim**-0.5 * math.log2(math.e)
    dtype, keys, values = queries.dtype, _packed_rows(keys), _packed_rows(values)
    if queries.numel() < keys.numel():
        queries = queries.float() * scale
    else:
        keys = keys * scale
    # Tokens before heads in memory, as the output projection reads them.
    attended = torch.empty(n_rows, length, n_heads, head_dim, dtype=dtype).transpose(1, 2)
    later = torch.full((size, size), -torch.inf).triu_(1) if is_causal else None

    @torch.inference_mode()
    def attend(block: tuple[int, int, int, int]) -> None:
        row, head, start, stop = block
        heads, tokens, n = slice(head * group, (head + 1) * group), slice(start, stop), stop - start
        n_seen = n_before + stop if is_causal else n_keys
        scores = multiply(queries[row, heads, tokens].reshape(-1, head_dim).float(), keys[row, head, :n_seen])
        if later is not None:
            scores.view(group, n, n_seen)[..., -n:].add_(later[:n, :n])
        if mask is not None:
            _apply(mask[row % len(mask), :, tokens], scores.view(group, n, n_seen))
        powers = scores.sub_(scores.amax(-1, keepdim=True)).exp2_()  # (group * n, n_seen)
        mixed = multiply(powers, values[row, head, :n_seen].T).div_(powers.sum(-1, keepdim=True))
        attended[row, heads, tokens] = mixed.view(group, n, head_dim)

    # Blocks end at keys that are multiples of their size: oneDNN is faster by such numbers of keys.
    first = size - n_before % size if is_causal else size
    blocks = list(pairwise([0, *range(first, length, size), length]))
    heads = [(row, head) for row in range(n_rows) for head in range(kv_heads)]
    # The long blocks come first, so that no thread is left with one at the end.
    _run_all(attend, [(*head, *block) for block in reversed(blocks) for head in heads])
    return attended


def _packed_rows(states: Tensor) -> Tensor:
    """Keys or values (B, kv_heads, S, head_dim) in float32, the rows of a head without gaps.

    oneDNN also takes a weight with gaps between its rows, but is a thousand times slower.
    """
    states = states.float()
    return states if states.stride()[2:] == (states.shape[3], 1) else states.contiguous()


def _apply(mask: Tensor, scores: Tensor) -> None:
    """Mask scores (group, T, S) in place; ``mask`` is (1, T, S)."""
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    else:
        scores += mask


def _run_all(run: Callable[[tuple[int, int, int, int]], None], blocks: Sequence[tuple[int, int, int, int]]) -> None:
    """Run all blocks, with as many threads as torch uses.

    Threads of torch would share each of the small products, and wait for each other after every one.
    """
    n_threads = torch.get_num_threads()
    try:
        running = map(run, blocks) if n_threads == 1 else _threads(n_threads).map(run, blocks)
    except RuntimeError:  # the main thread has ended, and this one goes on: Python refuses work for pools
        torch.set_num_threads(1)
        try:
            _run_all(run, blocks)
        finally:
            torch.set_num_threads(n_threads)
    else:
        for _ in running:
            pass


@cache
def _threads(n_threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch uses one core."""
    threads = ThreadPoolExecutor(n_threads, "attention", _use_one_core)
    together = Barrier(n_threads)
    for _ in threads.map(lambda _: together.wait(), range(n_threads)):
        pass
    torch.set_num_threads(n_threads)  # threads that start later take the number that was set last
    return threads


def _use_one_core() -> None:
    torch.get_num_threads()  # the first call in a thread takes over the number that was set last
    torch.set_num_threads(1)


@cache
def _can_multiply() -> bool:
    return can_multiply(torch.float32, packed=False)
