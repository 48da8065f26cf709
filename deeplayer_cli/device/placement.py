"""The device and the dtype of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deeplayer_cli.device.float64 import has_float64
from deeplayer_cli.errors import DeeplayerError

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
_SHORT_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
# bfloat16 is what the published weights are stored in; many CPUs compute in it slowly.
_AUTO_DTYPES = {"cuda": "bfloat16", "mps": "bfloat16", "cpu": "float32"}


@dataclass(frozen=True)
class Placement:
    """A device and the dtype of the weights on it."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, dtype: str) -> Placement:
        """Choose a placement from the values of ``--device`` and ``--dtype``.

        Args:
            device: ``cuda``, ``cuda:N``, ``mps``, ``cpu``, or ``auto``: the first of these that this machine has.
            dtype: ``auto`` (bfloat16 on cuda and mps, float32 on cpu) or a name such as ``bfloat16`` or ``bf16``.

        Raises:
            DeeplayerError: unknown names, or a device that this machine does not have.
        """
        place = _device(device)
        name = _AUTO_DTYPES[place.type] if dtype == "auto" else _SHORT_NAMES.get(dtype, dtype)
        if name not in DTYPES:
            raise DeeplayerError(f"unknown dtype {dtype!r}: choose auto, {', '.join((*DTYPES, *_SHORT_NAMES))}")
        if name == "float64" and not has_float64(place):
            raise DeeplayerError(f"device {place.type} has no float64: choose another --dtype, or --device cpu")
        return cls(place, DTYPES[name])


def _device(name: str) -> torch.device:
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in present.items() if count))
    kind, _, index = name.partition(":")
    if kind not in present or (":" in name and not index.isdecimal()):
        raise DeeplayerError(f"unknown device {name!r}: choose auto, cuda, cuda:N, mps or cpu")
    if int(index or 0) >= present[kind]:
        raise DeeplayerError(f"device {name!r} is not on this machine ({present[kind]} of its kind): use --device auto")
    return torch.device(name)
