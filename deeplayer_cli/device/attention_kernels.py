"""Which implementation of scaled dot-product attention torch may use."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch.nn.attention import SDPBackend, sdpa_kernel

_PREFERRED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def attention_kernel(name: str) -> AbstractContextManager[object]:
    """Prefer one kernel by name, and fall back to the plain one if it cannot run; with ``auto``, torch chooses."""
    if name == "auto":
        return nullcontext()
    # Masks and grouped heads rule the fast kernels out for some calls: without a fallback torch would raise there.
    backends = list(dict.fromkeys([_PREFERRED[name], SDPBackend.MATH]))
    return sdpa_kernel(backends, set_priority=True)
