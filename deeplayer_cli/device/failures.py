"""Kinds of exceptions that torch raises."""

from __future__ import annotations

import torch

_OUT_OF_MEMORY = (  # of a RuntimeError, which MPS, CPUs and the libraries of CUDA raise
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",  # cuBLAS and cuDNN had no memory for their workspace
)
_DEVICE_LOST = ("cuda error", "device-side assert", "hip error", "cudnn_status", "cublas_status")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, so that a smaller batch may succeed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the device has failed, so that this process cannot use it any more."""
    if is_out_of_memory(error):  # its message may name CUDA as well, but the device still works
        return False
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _DEVICE_LOST)
