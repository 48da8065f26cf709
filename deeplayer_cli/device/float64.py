"""float64 where rounding would decide, also for devices that have no float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_WITHOUT = frozenset({"mps"})
"""Types of devices without float64."""


def has_float64(device: torch.device) -> bool:
    """Whether the device can hold float64."""
    return device.type not in _WITHOUT


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its device, or on the CPU if its device has no float64; then the host waits."""
    return (tensor if has_float64(tensor.device) else tensor.cpu()).double()


def back_from_float64(tensor: Tensor, device: torch.device) -> Tensor:
    """A float64 tensor on ``device``; as float32 if the device has no float64."""
    return tensor.to(device, torch.float64 if has_float64(device) else torch.float32)
