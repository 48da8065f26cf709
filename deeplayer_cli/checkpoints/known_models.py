"""The models whose shapes are known without a download."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deeplayer_cli.checkpoints.files import read_json, stored_tensors
from deeplayer_cli.checkpoints.locate import DEMO, locate
from deeplayer_cli.checkpoints.sizes import INTERNVL3, SIZES
from deeplayer_cli.device.placement import DTYPES

_GIB = 2**30


@dataclass(frozen=True)
class KnownModel:
    """A model that ``--model`` names.

    Attributes:
        name: as ``--model`` takes it.
        parameters: number of parameters.
        layers: number of decoder layers.
        grounding_layer: the layer that the checkpoint names as its grounding layer, see ``Layout``.
        layout: of the checkpoint: ``original`` or ``native``.
        licence: tag of its card on the hub, or "see the card".
    """

    name: str
    parameters: int
    layers: int
    grounding_layer: int | None
    layout: str
    licence: str

    def weights_gib(self) -> dict[str, float]:
        """Return the memory of the weights in GiB, by dtype."""
        return {name: self.parameters * dtype.itemsize / _GIB for name, dtype in DTYPES.items()}


def known_models() -> list[KnownModel]:
    """Return the published sizes and the demo model.

    Raises:
        DeeplayerError: the demo model is missing or damaged.
    """
    folder = locate(DEMO, None)
    config = read_json(folder / "config.json")
    parameters = sum(math.prod(tensor.shape) for tensor in stored_tensors(folder).values())
    layers, layer = config["text_config"]["num_hidden_layers"], config.get("grounding_layer")
    published = [
        KnownModel(size.hub_name, size.parameters, size.text.layers, None, size.layout, size.licence)
        for size in (*SIZES, *INTERNVL3)
    ]
    return [*published, KnownModel(DEMO, parameters, layers, layer, "native", "Apache-2.0")]
