"""The reference outputs, as tests want them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True)
class Golden:
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Golden:
        with np.load(folder / "golden.npz") as arrays:
            return cls(json.loads((folder / "golden.json").read_text(encoding="utf-8")), dict(arrays))

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def samples(self) -> list[str]:
        return [sample["key"] for sample in self.facts["samples"]]

    def pixels(self, samples: list[int]) -> Tensor:
        return torch.cat([self[f"{self.samples[sample]}.pixel_values"] for sample in samples])
