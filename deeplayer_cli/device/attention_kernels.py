"""Which implementation of scaled dot-product attention torch may use."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_PREFERRED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}

KERNELS = ("auto", *_PREFERRED)
"""The names that `attention_kernel` takes."""


def attention_kernel(name: str) -> AbstractContextManager[object]:
    """Prefer one kernel by name, and fall back to the plain one if it cannot run; with ``auto``, none is preferred."""
    if name == "auto":
        return nullcontext()
    # Masks and grouped heads rule the fast kernels out for some calls: without a fallback torch would raise there.
    backends = list(dict.fromkeys([_PREFERRED[name], SDPBackend.MATH]))
    return sdpa_kernel(backends, set_priority=True)


def is_kernel_preferred() -> bool:
    """Whether a kernel is preferred, by `attention_kernel` or by torch's own switches."""
    switches = torch.backends.cuda  # they hold for CPUs as well
    return not (
        switches.flash_sdp_enabled()
        and switches.mem_efficient_sdp_enabled()
        and switches.cudnn_sdp_enabled()
        and switches.math_sdp_enabled()
    )


def runnable_kernels(device: torch.device, dtype: torch.dtype) -> dict[str, list[str]]:
    """Run every kernel alone on small tensors, as the engine calls it.

    Returns:
        For each kernel, which of its uses run: ``causal`` (grouped heads, no mask) and ``masked``.
    """
    queries, keys = (torch.ones(1, heads, 16, 64, device=device, dtype=dtype) for heads in (4, 2))
    mask = torch.ones(1, 1, 16, 16, device=device, dtype=torch.bool)
    uses: dict[str, Callable[[], Tensor]] = {
        "causal": lambda: scaled_dot_product_attention(queries, keys, keys, is_causal=True, enable_gqa=True),
        "masked": lambda: scaled_dot_product_attention(keys, keys, keys, attn_mask=mask),
    }
    return {name: [use for use, call in uses.items() if _runs(backend, call)] for name, backend in _PREFERRED.items()}


def _runs(backend: SDPBackend, call: Callable[[], Tensor]) -> bool:
    with warnings.catch_warnings(), sdpa_kernel([backend]):
        warnings.simplefilter("ignore")  # torch warns of every reason why a kernel does not run
        try:
            return bool(call().isfinite().all())
        except RuntimeError:
            return False
