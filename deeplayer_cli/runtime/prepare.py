"""From what a user asks for to a run: what its answers depend on, and how to load who answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deeplayer_cli.runtime.run import Answerer


@dataclass(frozen=True)
class PreparedRun:
    """A run that has been checked as far as that goes without loading the model.

    Attributes:
        deciding: what an answer depends on besides its row and image.
        load: loads the model.
    """

    deciding: Mapping[str, object]
    load: Callable[[], Answerer]


class Prepare(Protocol):
    """Checks a model and settings, and says how to load them; `prepare` is the real one."""

    def __call__(
        self, model: str, *, revision: str | None, dtype: str, device: str, settings: Mapping[str, Any]
    ) -> PreparedRun:
        """Prepare a run.

        Args:
            model: see `deeplayer_cli.checkpoints.load`, also for the next three.
            revision: of a hub model.
            dtype: of the weights.
            device: to run on.
            settings: fields of `Settings`.

        Raises:
            DeeplayerError: there is no such model, or a setting will not do.
        """


def prepare(model: str, *, revision: str | None, dtype: str, device: str, settings: Mapping[str, Any]) -> PreparedRun:
    """As `Prepare`."""
    from deeplayer_cli.checkpoints import read_layout
    from deeplayer_cli.runtime.grounder import Grounder
    from deeplayer_cli.runtime.identity import ModelIdentity, deciding
    from deeplayer_cli.runtime.settings import Settings

    wanted = Settings(**settings)
    if wanted.max_new_tokens > Settings.max_new_tokens:  # every model has room for the default
        wanted.require_positions(read_layout(model, revision).config.text_config.max_position_embeddings)
    identity = ModelIdentity.from_name(model, revision=revision, dtype=dtype, device=device)

    def load() -> Grounder:
        return Grounder.load(model, revision=revision, dtype=dtype, device=device, settings=wanted, identity=identity)

    return PreparedRun(deciding(identity, wanted), load)
