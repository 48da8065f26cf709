"""Everything that an answer depends on, besides its row and image: a run records it, and `--resume` compares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from deeplayer_cli import checkpoints
from deeplayer_cli.checkpoints.identity import fingerprint
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.pruning.registry import method_code
from deeplayer_cli.runtime.prior_file import prior_digest

if TYPE_CHECKING:
    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.runtime.settings import Settings


@dataclass(frozen=True)
class ModelIdentity:
    """The weights and the dtype of a model.

    Attributes:
        weights: a digest of the weights.
        dtype: the name of the dtype, such as ``"bfloat16"``.
    """

    weights: str
    dtype: str

    @classmethod
    def from_name(cls, model: str, *, revision: str | None, dtype: str, device: str) -> ModelIdentity:
        """Identify a model without loading it; arguments as for `checkpoints.load`.

        Raises:
            DeeplayerError: the model, dtype or device does not exist.
        """
        placement = Placement.choose(device, dtype)
        return cls(checkpoints.identify(model, revision, placement), _name(placement.dtype))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> ModelIdentity:
        """Identify a loaded model by its weights alone."""
        return cls(fingerprint(checkpoint.model), _name(checkpoint.model.dtype))

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the dtype."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype.itemsize


def deciding(identity: ModelIdentity, settings: Settings) -> dict[str, object]:
    """Return everything that an answer depends on, besides its row and image, for the record of a run.

    Raises:
        DeeplayerError: the prior cannot be read.
    """
    prior = prior_digest(settings.prior) if settings.prior else None
    found = {"weights": identity.weights, "dtype": identity.dtype, **settings.deciding(), "prior": prior}
    code = method_code(settings.method)
    return found if code is None else found | {"method_code": code}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
