"""Copies from the host to a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def to_device(values: Tensor | Sequence[object], device: torch.device) -> Tensor:
    """Copy a tensor, or nested lists of numbers, to a device; the host does not wait for the device.

    CUDA copies in the background only from pinned memory; ``torch.tensor(values, device=device)`` would wait. MPS would
    still read from memory that is freed here, so there the host waits.
    """
    tensor = torch.as_tensor(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")
