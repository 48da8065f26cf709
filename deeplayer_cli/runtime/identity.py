"""What an answer depends on besides its row and image: the record of a run, and what `--resume` compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli import checkpoints
from deeplayer_cli.checkpoints.identity import fingerprint
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.runtime.prior_file import prior_digest

if TYPE_CHECKING:
    import torch

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.runtime.settings import Settings


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights run in which number format.

    Attributes:
        weights: a digest.
        dtype: its name.
    """

    weights: str
    dtype: str

    @classmethod
    def from_name(cls, model: str, *, revision: str | None, dtype: str, device: str) -> ModelIdentity:
        """Of a model that has not been loaded; arguments as `checkpoints.load`'s.

        Raises:
            DeeplayerError: there is no such model, dtype or device.
        """
        chosen = Placement.choose(device, dtype).dtype
        return cls(checkpoints.identify(model, revision), _name(chosen))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> ModelIdentity:
        """Of a model that has been loaded, by its weights alone."""
        return cls(fingerprint(checkpoint.model), _name(checkpoint.model.dtype))


def deciding(identity: ModelIdentity, settings: Settings) -> dict[str, object]:
    """What an answer depends on besides its row and image, as a run's record holds it.

    Raises:
        DeeplayerError: the prior cannot be read.
    """
    prior = prior_digest(settings.prior) if settings.prior else None
    return {"weights": identity.weights, "dtype": identity.dtype, **settings.deciding(), "prior": prior}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
