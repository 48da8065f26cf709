"""Prepare a run: check the model and the settings before the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deeplayer_cli.runtime.run import Answerer

Loaded = TypeVar("Loaded", covariant=True)


@dataclass(frozen=True)
class PreparedRun(Generic[Loaded]):
    """A run after all checks that need no loaded model.

    Attributes:
        deciding: everything that an answer depends on, besides its row and image.
        load: loads the model.
    """

    deciding: Mapping[str, object]
    load: Callable[[], Loaded]


class Prepare(Protocol):
    """The interface of `prepare`: check a model and settings, and return a function that loads them."""

    def __call__(
        self, model: str, *, revision: str | None, dtype: str, device: str, settings: Mapping[str, Any]
    ) -> PreparedRun[Answerer]:
        """Prepare a run.

        Args:
            model: see `deeplayer_cli.checkpoints.load`, also for the next three.
            revision: of a hub model.
            dtype: of the weights.
            device: to run on.
            settings: fields of `Settings`.

        Raises:
            DeeplayerError: the model does not exist, or a setting is invalid.
        """


def prepare(
    model: str, *, revision: str | None, dtype: str, device: str, settings: Mapping[str, Any]
) -> PreparedRun[Answerer]:
    """Check a model and settings without loading the model; arguments and errors as for `Prepare`."""
    from deeplayer_cli.checkpoints import read_layout
    from deeplayer_cli.runtime.grounder import Grounder
    from deeplayer_cli.runtime.identity import ModelIdentity, deciding
    from deeplayer_cli.runtime.settings import Settings

    wanted = Settings(**settings)
    identity = ModelIdentity.from_name(model, revision=revision, dtype=dtype, device=device)
    if wanted.max_new_tokens > Settings.max_new_tokens:  # the default fits every model
        wanted.require_positions(read_layout(model, revision).config.text_config.max_position_embeddings)

    def load() -> Grounder:
        return Grounder.load(model, revision=revision, dtype=dtype, device=device, settings=wanted, identity=identity)

    return PreparedRun(deciding(identity, wanted), load)
